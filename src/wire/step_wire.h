// A hop's frame <-> a step and its activations. Every size, count, enum and range of a frame is
// checked here; what comes out is true.
#ifndef EFEDLLM_WIRE_STEP_WIRE_H_
#define EFEDLLM_WIRE_STEP_WIRE_H_

#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/step.h"
#include "common/ids.h"
#include "svd/codec.h"
#include "tensor/matrix.h"

namespace efedllm {

// A step on its way: with its activations, or with the reason why a stage could not run it.
struct StepFrame {
  Step step;
  Matrix hidden;         // [step.tokens(), d_model]; empty where failure is not OK
  absl::Status failure;  // OK: none. Its message is printable.
  NodeId failed_node;    // where failure arose
};

// hidden: [step.tokens(), d_model].
grpc::ByteBuffer StepToWire(const Step& step, ConstMatrixRef hidden, CodecId codec);
grpc::ByteBuffer StepFailureToWire(const Step& step, NodeId node, const absl::Status& failure);

// Largest frame that is valid within the limits: what a stream must accept, and refuse beyond.
size_t MaxStepFrameBytes(const StepLimits& limits, size_t d_model);

// InvalidArgument says what is wrong. Checks: within limits, spans not empty and of distinct
// sequences, positions in range and not overflowing, no sequence both released and run, known
// codec, payload of the exact size, finite values. hidden is reused where it has the right shape
// (no allocation per step in the steady state).
absl::Status StepFromWire(const grpc::ByteBuffer& bytes, const StepLimits& limits, size_t d_model,
                          StepFrame& frame);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_STEP_WIRE_H_
