// A hop's frame <-> a step and its activations. Every size, count, enum and range of a frame is
// checked here; what comes out is true.
#ifndef EFEDLLM_WIRE_STEP_WIRE_H_
#define EFEDLLM_WIRE_STEP_WIRE_H_

#include <grpcpp/support/byte_buffer.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cluster/stage_timing.h"
#include "cluster/step.h"
#include "common/ids.h"
#include "svd/codec.h"
#include "tensor/matrix.h"

namespace efedllm {

// Stages that a step can have passed, and so their timings in a frame.
inline constexpr size_t kMaxStages = 1024;

// A step on its way: with its activations, or with the reason why a stage could not run it.
struct StepFrame {
  Step step;
  // [step.tokens(), d_model]; empty where failure is not OK. A replay's may have no rows: nobody
  // asked for them.
  Matrix hidden;
  CodecSetting codec;                // how hidden was coded
  uint64_t encoded_bytes = 0;        // that hidden took
  absl::Status failure;              // OK: none. Its message is printable.
  NodeId failed_node;                // where failure arose
  std::vector<StageTiming> timings;  // of the stages so far, in their order
};

// activations: of [step.tokens(), d_model] values, or of none in a replay, as
// ActivationCodec::Encode wrote them; they are not copied. timings: of the stages so far, at most
// kMaxStages.
grpc::ByteBuffer StepToWire(const Step& step, std::string activations, CodecSetting codec,
                            absl::Span<const StageTiming> timings = {});
grpc::ByteBuffer StepFailureToWire(const Step& step, NodeId node, const absl::Status& failure,
                                   absl::Span<const StageTiming> timings = {});

// Largest frame that is valid within the limits: what a stream must accept, and refuse beyond.
size_t MaxStepFrameBytes(const StepLimits& limits, size_t d_model);

// Whatever it refuses is the sender's fault, or the wire's. DataLoss: the checksum is wrong or
// missing (verified before anything is read), or values are not finite. InvalidArgument says what
// else is wrong. Checks: within limits, trims, forks and spans each of distinct sequences, forks
// and spans not empty, no sequence trimmed to more than where it goes on (but in a replay),
// positions in range and not overflowing, replayed stages in order, known codec, payload of exactly
// the step's tokens (or none, in a replay). codec: of the boundary that the frame crosses.
// hidden is reused where it has the right shape (no allocation per step in the steady state).
// rows: if not null, each row's encoding by itself is added to them.
absl::Status StepFromWire(const grpc::ByteBuffer& bytes, const StepLimits& limits,
                          ActivationCodec& codec, StepFrame& frame, EncodedRows* rows = nullptr);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_STEP_WIRE_H_
