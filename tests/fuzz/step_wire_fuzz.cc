// libs: efedllm_wire
// Any bytes as a step, with and without a checksum behind them: a Status or a step that is true,
// and what was read is written and read back the same.
#include <cstddef>
#include <cstdint>
#include <string>

#include "common/check.h"
#include "testing/plain_frame.h"
#include "wire/frame.h"
#include "wire/step_wire.h"

namespace {

constexpr size_t kModel = 4;
constexpr efedllm::StepLimits kLimits{
    .max_tokens = 16, .max_spans = 4, .max_trims = 4, .max_forks = 3, .max_position = 1000};

void Check(const grpc::ByteBuffer& bytes) {
  efedllm::StepFrame frame;
  if (!PlainStepFromWire(bytes, kLimits, kModel, frame).ok()) return;
  const efedllm::Step& step = frame.step;
  CHECK(step.tokens() <= kLimits.max_tokens);
  CHECK(step.spans.size() <= kLimits.max_spans);
  CHECK(step.replay_stages.size() <= efedllm::kMaxStages);
  if (!frame.failure.ok() || step.replay()) {
    CHECK(frame.hidden.rows() == 0 || frame.hidden.rows() == step.tokens());
  } else {
    CHECK(frame.hidden.rows() == step.tokens());
  }

  const grpc::ByteBuffer again =
      frame.failure.ok() ? PlainStepToWire(step, frame.hidden.ref(), frame.timings)
                         : StepFailureToWire(step, frame.failed_node, frame.failure, frame.timings);
  efedllm::StepFrame copy;
  CHECK(PlainStepFromWire(again, kLimits, kModel, copy).ok());
  CHECK(copy.step.spans == step.spans);
  CHECK(copy.step.trims == step.trims);
  CHECK(copy.step.forks == step.forks);
  CHECK(copy.step.forget_others == step.forget_others);
  CHECK(copy.step.replay_stages == step.replay_stages);
  CHECK(copy.hidden.rows() == frame.hidden.rows());
  CHECK(copy.timings == frame.timings);
  CHECK(copy.failure.code() == frame.failure.code());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const grpc::Slice slice(data, size);
  Check(grpc::ByteBuffer(&slice, 1));
  Check(efedllm::SealFrame(std::string(reinterpret_cast<const char*>(data), size)));
  return 0;
}
