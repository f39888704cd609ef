#include "coordinator/generation.h"

namespace efedllm {

std::optional<GenerationEvent> Generation::Next(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  if (events_.empty() && timeout > absl::ZeroDuration()) {
    mu_.AwaitWithTimeout(absl::Condition(this, &Generation::HasEventOrIsOver), timeout);
  }
  if (events_.empty()) return std::nullopt;
  std::optional<GenerationEvent> event(std::move(events_.front()));
  events_.pop_front();
  return event;
}

bool Generation::done() const {
  absl::MutexLock lock(&mu_);
  return unfinished_ == 0 && events_.empty();
}

void Generation::Push(GenerationEvent event) {
  absl::MutexLock lock(&mu_);
  if (unfinished_ == 0) return;
  if (!event.status.ok()) {
    unfinished_ = 0;
  } else if (event.finish.has_value()) {
    --unfinished_;
  }
  events_.push_back(std::move(event));
}

bool Generation::HasEventOrIsOver() const { return !events_.empty() || unfinished_ == 0; }

}  // namespace efedllm
