// libs: efedllm_wire
// Any bytes as a step: a Status or a step that is true, and what was read is written and read back
// the same.
#include <cstddef>
#include <cstdint>

#include "common/check.h"
#include "wire/step_wire.h"

namespace {

constexpr size_t kModel = 4;
constexpr efedllm::StepLimits kLimits{
    .max_tokens = 16, .max_spans = 4, .max_trims = 4, .max_forks = 3, .max_position = 1000};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const grpc::Slice slice(data, size);
  efedllm::StepFrame frame;
  if (!StepFromWire(grpc::ByteBuffer(&slice, 1), kLimits, kModel, frame).ok()) return 0;
  CHECK(frame.step.tokens() <= kLimits.max_tokens);
  CHECK(frame.step.spans.size() <= kLimits.max_spans);
  CHECK(frame.hidden.rows() == (frame.failure.ok() ? frame.step.tokens() : 0));

  const grpc::ByteBuffer again =
      frame.failure.ok()
          ? StepToWire(frame.step, frame.hidden.ref(), efedllm::CodecId::kF32, frame.timings)
          : StepFailureToWire(frame.step, frame.failed_node, frame.failure, frame.timings);
  efedllm::StepFrame copy;
  CHECK(StepFromWire(again, kLimits, kModel, copy).ok());
  CHECK(copy.step.spans == frame.step.spans);
  CHECK(copy.step.trims == frame.step.trims);
  CHECK(copy.step.forks == frame.step.forks);
  CHECK(copy.timings == frame.timings);
  CHECK(copy.failure.code() == frame.failure.code());
  return 0;
}
