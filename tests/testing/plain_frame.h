// Frames of activations as they are.
#ifndef EFEDLLM_TESTING_PLAIN_FRAME_H_
#define EFEDLLM_TESTING_PLAIN_FRAME_H_

#include <grpcpp/support/byte_buffer.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "svd/codec.h"
#include "tensor/matrix.h"
#include "wire/step_wire.h"

namespace efedllm {

inline grpc::ByteBuffer PlainStepToWire(const Step& step, ConstMatrixRef hidden,
                                        absl::Span<const StageTiming> timings = {}) {
  std::string activations;
  ActivationCodec(hidden.cols).Encode(CodecSetting(), hidden, activations);
  return StepToWire(step, std::move(activations), CodecSetting(), timings);
}

inline absl::Status PlainStepFromWire(const grpc::ByteBuffer& bytes, const StepLimits& limits,
                                      size_t d_model, StepFrame& frame) {
  ActivationCodec codec(d_model);
  return StepFromWire(bytes, limits, codec, frame);
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTING_PLAIN_FRAME_H_
