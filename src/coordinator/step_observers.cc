#include "coordinator/step_observers.h"

#include <memory>
#include <utility>
#include <vector>

namespace efedllm {

void StepObservers::OnStep(const Batcher::StepInFlight& step, const StepResult& result,
                           absl::Time head_begun, absl::Time head_done) const {
  if (meters != nullptr) {
    meters->Observe(result, step.submitted_at, static_cast<uint32_t>(step.step.tokens()));
  }
  if (usage != nullptr) usage->Observe(step);
  if (traces == nullptr) return;
  StepTrace trace;
  trace.epoch = result.epoch;
  trace.step = result.id;
  trace.chain = result.chain;
  trace.rows = static_cast<uint32_t>(step.step.tokens());
  trace.submitted = step.submitted_at;
  trace.returned = result.returned;
  trace.received_codec = result.received_codec;
  trace.received_bytes = result.received_bytes;
  trace.head_begun = head_begun;
  trace.head_done = head_done;
  trace.timings = std::make_shared<const std::vector<StageTiming>>(result.timings);
  for (const Batcher::Part& part : step.parts) {
    trace.choice = part.sequence->choice();
    trace.first_position = part.span.first_position;
    trace.tokens = part.span.tokens;
    traces->Record(part.sequence->generation().id(), trace);
  }
}

}  // namespace efedllm
