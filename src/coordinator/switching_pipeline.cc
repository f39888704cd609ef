#include "coordinator/switching_pipeline.h"

#include <algorithm>
#include <utility>

#include "common/status_macros.h"

namespace efedllm {

SwitchingPipeline::Entries SwitchingPipeline::TakeDrained() {
  Entries drained;
  while (!entries_.empty() && entries_.front()->in_flight == 0 &&
         !(serving_ && entries_.size() == 1)) {
    drained.push_back(std::move(entries_.front()));
    entries_.pop_front();
  }
  return drained;
}

void SwitchingPipeline::Serve(std::shared_ptr<Pipeline> pipeline) {
  auto entry = std::make_shared<Entry>();
  entry->pipeline = std::move(pipeline);
  Entries drained;
  absl::MutexLock lock(&mu_);
  serving_ = false;
  drained = TakeDrained();
  entries_.push_back(std::move(entry));
  serving_ = true;
}

void SwitchingPipeline::Stop(const absl::Status& why) {
  Entries drained;
  absl::MutexLock lock(&mu_);
  serving_ = false;
  reason_ = why;
  drained = TakeDrained();
}

absl::StatusOr<PipelineCapacity> SwitchingPipeline::Capacity() const {
  std::shared_ptr<Pipeline> pipeline;
  {
    absl::MutexLock lock(&mu_);
    if (!serving_) return reason_;
    pipeline = entries_.back()->pipeline;
  }
  return pipeline->Capacity();
}

absl::Status SwitchingPipeline::Submit(Step step, size_t chain, Matrix hidden) {
  std::shared_ptr<Entry> entry;
  {
    absl::MutexLock lock(&mu_);
    if (!serving_) return absl::AbortedError(reason_.message());
    entry = entries_.back();
    ++entry->in_flight;
  }
  const absl::Status status = entry->pipeline->Submit(std::move(step), chain, std::move(hidden));
  if (!status.ok()) {
    Entries drained;
    absl::MutexLock lock(&mu_);
    --entry->in_flight;
    drained = TakeDrained();
  }
  return status;
}

std::optional<StepResult> SwitchingPipeline::NextResult(absl::Duration timeout) {
  std::shared_ptr<Entry> entry;
  {
    const absl::Time start = absl::Now();
    absl::MutexLock lock(&mu_);
    if (entries_.empty() && timeout > absl::ZeroDuration()) {
      mu_.AwaitWithTimeout(absl::Condition(this, &SwitchingPipeline::HasEntry), timeout);
    }
    if (entries_.empty()) return std::nullopt;
    timeout -= absl::Now() - start;
    entry = entries_.front();
  }
  std::optional<StepResult> result =
      entry->pipeline->NextResult(std::max(timeout, absl::ZeroDuration()));
  if (result) {
    Entries drained;
    absl::MutexLock lock(&mu_);
    --entry->in_flight;
    drained = TakeDrained();
  }
  return result;
}

}  // namespace efedllm
