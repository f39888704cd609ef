#include "coordinator/batcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace efedllm {
namespace {

// A failed request fails with all its choices: the others are dropped as if the client had gone.
void Fail(Sequence& sequence, const absl::Status& status) {
  GenerationEvent event;
  event.status = status;
  sequence.generation().Push(std::move(event));
  sequence.generation().Cancel();
}

}  // namespace

void Batcher::BeginEpoch(const PipelineCapacity& capacity) {
  CHECK(!capacity_.has_value());
  capacity_ = capacity;
  last_step_ = 0;
}

size_t Batcher::EndEpoch() {
  size_t begun = 0;
  for (const auto& sequence : running_) begun += sequence->submitted() > 0;
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    (*it)->Restart();
    waiting_.push_front(std::move(*it));
  }
  running_.clear();
  released_.clear();
  in_flight_.clear();
  kv_reserved_ = 0;
  capacity_.reset();
  return begun;
}

void Batcher::DropCancelled() {
  const auto cancelled = [](const auto& sequence) { return sequence->generation().cancelled(); };
  waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), cancelled), waiting_.end());
  for (size_t i = running_.size(); i-- > 0;) {
    if (cancelled(running_[i])) Stop(std::shared_ptr<Sequence>(running_[i]));
  }
}

void Batcher::FailWaiting(const absl::Status& status) {
  for (const auto& sequence : waiting_) Fail(*sequence, status);
  waiting_.clear();
}

const Batcher::StepInFlight* Batcher::NextStep(absl::Time now) {
  if (!has_idle_stage()) return nullptr;
  StepInFlight next;
  TakeReleases(next.step);  // first: they make room
  Admit();
  TakeSpans(next);
  if (next.step.spans.empty() && next.step.trims.empty()) return nullptr;
  next.step.epoch = capacity_->epoch;
  next.step.id = StepId{++last_step_};
  next.submitted_at = now;
  in_flight_.push_back(std::move(next));
  return &in_flight_.back();
}

void Batcher::TakeReleases(Step& step) {
  while (!released_.empty() && step.trims.size() < capacity_->limits.max_trims) {
    step.trims.push_back({released_.front().sequence, 0});
    kv_reserved_ -= released_.front().kv_tokens;
    released_.pop_front();
  }
}

void Batcher::Admit() {
  const size_t most = std::min<size_t>(max_sequences_, capacity_->limits.max_spans);
  while (!waiting_.empty() && running_.size() < most) {
    const std::shared_ptr<Sequence>& next = waiting_.front();
    const uint64_t kv_tokens = next->kv_tokens();
    if (kv_tokens > capacity_->chains[0].kv_tokens) {
      Fail(*next,
           absl::UnavailableError(absl::StrCat("the request needs KV memory for ", kv_tokens,
                                               " token positions, and the nodes have it for ",
                                               capacity_->chains[0].kv_tokens)));
      waiting_.pop_front();
      continue;
    }
    if (kv_reserved_ + kv_tokens > capacity_->chains[0].kv_tokens)
      return;  // nobody overtakes: no starving
    kv_reserved_ += kv_tokens;
    running_.push_back(next);
    waiting_.pop_front();
  }
}

void Batcher::TakeSpans(StepInFlight& next) {
  std::vector<SequenceWork> work;
  StepDemand demand;
  work.reserve(running_.size());
  for (const auto& sequence : running_) {
    work.push_back({sequence->known(), sequence->submitted(), 0, sequence->last_step});
    if (work.back().known - work.back().submitted > 1) {
      demand.prompt_rows += work.back().known - work.back().submitted;
    } else {
      ++demand.decoding;
    }
  }
  const ChainCapacity& chain = capacity_->chains[0];
  const StepRules rules{chain.stages, MaxStepsInFlight(chain),
                        std::min(max_step_tokens_, capacity_->limits.max_tokens),
                        capacity_->limits.max_spans};
  const ChainTimes unknown(chain.stages);
  for (const PlannedSpan& planned : PlanStep(work, rules, ShapeSteps(demand, rules, unknown))) {
    const std::shared_ptr<Sequence>& sequence = running_[planned.sequence];
    const SequenceSpan span{sequence->id(), sequence->submitted(), planned.tokens};
    sequence->MarkSubmitted(planned.tokens);
    sequence->last_step = last_step_ + 1;
    next.step.spans.push_back(span);
    next.parts.push_back({sequence, span});
  }
}

std::optional<Batcher::StepInFlight> Batcher::Finish(Epoch epoch, StepId id) {
  if (!serving() || epoch != capacity_->epoch) return std::nullopt;
  const auto it = std::find_if(in_flight_.begin(), in_flight_.end(),
                               [&](const StepInFlight& s) { return s.step.id == id; });
  if (it == in_flight_.end()) return std::nullopt;
  StepInFlight step = std::move(*it);
  in_flight_.erase(it);
  return step;
}

void Batcher::FailStep(const StepInFlight& step, const absl::Status& status) {
  for (const Part& part : step.parts) {
    Fail(*part.sequence, status);
    Stop(part.sequence);
  }
  // Whether the nodes saw the releases is not known; a second one does no harm.
  for (const SequenceTrim& trim : step.step.trims) released_.push_back({trim.sequence, 0});
}

void Batcher::Retire(const StepInFlight& step) {
  for (const Part& part : step.parts) {
    if (part.sequence->finished()) Stop(part.sequence);
  }
}

void Batcher::Stop(const std::shared_ptr<Sequence>& sequence) {
  const auto it = std::find(running_.begin(), running_.end(), sequence);
  if (it == running_.end()) return;
  if (sequence->submitted() > 0) {
    released_.push_back({sequence->id(), sequence->kv_tokens()});
  } else {
    kv_reserved_ -= sequence->kv_tokens();
  }
  running_.erase(it);
}

std::vector<int32_t> Batcher::StepInFlight::Tokens() const {
  std::vector<int32_t> tokens;
  for (const Part& part : parts) {
    for (uint32_t i = 0; i < part.span.tokens; ++i) {
      tokens.push_back(part.sequence->token(part.span.first_position + i));
    }
  }
  return tokens;
}

}  // namespace efedllm
