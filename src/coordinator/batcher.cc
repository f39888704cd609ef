#include "coordinator/batcher.h"

#include <algorithm>
#include <utility>

#include "layers/kv_cache.h"

namespace efedllm {
namespace {

constexpr uint64_t kPage = KvCache::kPagePositions;
// Trims that one step's spans may cause, by far.
constexpr size_t kTrimsOfAStep = 256;

uint64_t PagesFor(uint64_t positions) { return (positions + kPage - 1) / kPage; }

bool MoreImportant(const Sequence& a, const Sequence& b) {
  return a.priority() != b.priority() ? a.priority() > b.priority() : a.id().v < b.id().v;
}

}  // namespace

Batcher::Batcher(const BatcherOptions& options, SequenceIds& ids)
    : options_(options),
      kv_(options.capacity.kv_tokens / kPage, ids),
      times_(options.capacity.stages) {
  shape_.in_flight = std::max<size_t>(options.capacity.stages, 1);
}

StepRules Batcher::Rules() const {
  return {std::max<size_t>(options_.capacity.stages, 1), MaxStepsInFlight(options_.capacity),
          std::min(options_.max_step_tokens, options_.limits.max_tokens),
          options_.limits.max_spans};
}

bool Batcher::CanHold(const Sequence& sequence) const {
  return PagesFor(sequence.max_positions()) <= kv_.pages();
}

bool Batcher::Fits(const Sequence& sequence) const {
  if (!CanHold(sequence)) return false;
  if (running_.size() >= std::min<size_t>(options_.max_sequences, options_.limits.max_spans)) {
    return false;
  }
  // Each that runs may soon need a page more, and those whose prompt is not computed yet need that.
  uint64_t wanted = PagesFor(sequence.known() + 1) - Known(sequence).held;
  for (const Running& running : running_) {
    const uint64_t has = PrefixCache::Pages(running.lease);
    wanted += std::max(PagesFor(running.sequence->known() + 1), has) - has + 1;
  }
  return running_.empty() || kv_.held_pages() + wanted <= kv_.pages();
}

void Batcher::Admit(std::shared_ptr<Sequence> sequence) {
  Running running;
  running.lease = kv_.Begin(sequence->tokens(), sequence->shares_prefix());
  sequence->Restart(running.lease.cached());
  running.sequence = std::move(sequence);
  const auto behind = std::find_if(running_.begin(), running_.end(), [&](const Running& other) {
    return MoreImportant(*running.sequence, *other.sequence);
  });
  running_.insert(behind, std::move(running));
}

std::shared_ptr<Sequence> Batcher::Preempt(int priority) {
  if (running_.empty() || running_.back().sequence->priority() >= priority) return nullptr;
  std::shared_ptr<Sequence> sequence = running_.back().sequence;
  Stop(running_.size() - 1);
  return sequence;
}

std::vector<std::shared_ptr<Sequence>> Batcher::TakePreempted() {
  return std::exchange(preempted_, {});
}

std::vector<std::shared_ptr<Sequence>> Batcher::Take(
    const std::function<bool(const Sequence&)>& which) {
  std::vector<std::shared_ptr<Sequence>> taken;
  for (size_t i = running_.size(); i-- > 0;) {
    if (!which(*running_[i].sequence)) continue;
    taken.push_back(running_[i].sequence);
    Stop(i);
  }
  return taken;
}

std::vector<std::shared_ptr<Sequence>> Batcher::TakeAll() {
  return Take([](const Sequence&) { return true; });
}

// Positions that hold the KV of known tokens once the steps in flight are through.
absl::Span<const int32_t> Batcher::Computed(const Sequence& sequence) const {
  return sequence.tokens().first(std::min(sequence.submitted(), sequence.known()));
}

void Batcher::Stop(size_t running) {
  kv_.End(running_[running].lease, Computed(*running_[running].sequence));
  running_.erase(running_.begin() + static_cast<long>(running));
}

std::vector<Batcher::Running>::iterator Batcher::Find(const Sequence& sequence) {
  return std::find_if(running_.begin(), running_.end(),
                      [&](const Running& running) { return running.sequence.get() == &sequence; });
}

bool Batcher::Runs(const std::string& owner) const {
  return std::any_of(running_.begin(), running_.end(),
                     [&](const Running& running) { return running.sequence->owner() == owner; });
}

// One that comes before it computes what it could take over.
bool Batcher::WaitsForPrefix(size_t running) const {
  const Running& late = running_[running];
  if (late.lease.begun() || !late.sequence->shares_prefix()) return false;
  const absl::Span<const int32_t> tokens = late.sequence->tokens();
  for (size_t i = 0; i < running; ++i) {
    const Sequence& early = *running_[i].sequence;
    if (!early.shares_prefix() || early.submitted() >= early.prompt_tokens()) continue;
    const absl::Span<const int32_t> others = early.tokens().first(early.prompt_tokens());
    const size_t n = std::min(tokens.size() - 1, others.size());
    const auto end = std::mismatch(tokens.begin(), tokens.begin() + n, others.begin()).first;
    const auto common = static_cast<uint64_t>(end - tokens.begin());
    if (common / kPage * kPage > late.lease.cached()) return true;
  }
  return false;
}

std::vector<SequenceWork> Batcher::Work() {
  std::vector<SequenceWork> work(running_.size());
  for (size_t i = 0; i < running_.size(); ++i) {
    auto& [sequence, lease, held] = running_[i];
    if (!lease.begun()) {
      kv_.Rematch(lease, sequence->tokens());
      sequence->Restart(lease.cached());
    } else {
      kv_.Unpin(lease);
    }
    work[i].known = std::max(sequence->known(), sequence->submitted());
    work[i].submitted = sequence->submitted();
    work[i].last_step = sequence->last_step;
    if (WaitsForPrefix(i)) work[i].known = work[i].submitted;
  }
  return work;
}

void Batcher::Draft(std::vector<SequenceWork>& work, const DraftCallback& draft) {
  Decodes decodes;
  uint32_t rows = 0;
  for (const PlannedSpan& span : PlanStep(work, Rules(), shape_)) {
    rows += span.tokens;
    if (!work[span.sequence].decodes()) continue;
    decodes.sequences.push_back(running_[span.sequence].sequence.get());
  }
  if (decodes.sequences.empty()) return;
  decodes.room = Rules().max_tokens - rows;
  decodes.seconds = [this](uint32_t n) {
    return std::max(static_cast<double>(shape_.in_flight) * times_.Interval(n, n),
                    times_.Pass(n, n));
  };
  draft(decodes);
  for (size_t i = 0; i < work.size(); ++i) {
    const Sequence& sequence = *running_[i].sequence;
    if (work[i].decodes()) work[i].drafts = sequence.ready() - sequence.known();
  }
}

const Batcher::StepInFlight* Batcher::NextStep(StepId id, absl::Time now,
                                               const DraftCallback& draft) {
  if (in_flight_.size() >= MaxStepsInFlight(options_.capacity)) return nullptr;
  const bool adopts = options_.capacity.continues && forget_others_;
  if (adopts || (has_idle_stage() && IsReplaying())) return NextRecovery(id, now);
  StepDemand demand;
  for (const Running& running : running_) {
    const Sequence& sequence = *running.sequence;
    if (sequence.submitted() + 1 < sequence.known()) {
      demand.prompt_rows += sequence.known() - sequence.submitted();
    } else {
      ++demand.decoding;
    }
  }
  shape_ = ShapeSteps(demand, Rules(), times_);
  StepInFlight next;
  next.step.epoch = options_.epoch;
  next.step.id = id;
  // Where the nodes have very much to forget, they do only that.
  if (has_idle_stage() && kv_.pending_trims() + kTrimsOfAStep <= options_.limits.max_trims) {
    std::vector<SequenceWork> work = Work();
    Draft(work, draft);
    TakeSpans(work, next);
  }
  if (next.step.spans.empty() && (kv_.pending_trims() == 0 || !in_flight_.empty())) return nullptr;
  next.step.forget_others = std::exchange(forget_others_, false);
  next.step.trims = kv_.TakeTrims(options_.limits.max_trims);
  next.submitted_at = now;
  in_flight_.push_back(std::move(next));
  return &in_flight_.back();
}

void Batcher::TakeSpans(absl::Span<const SequenceWork> work, StepInFlight& next) {
  // By pointer: making room may take others out of running_.
  std::vector<std::pair<std::shared_ptr<Sequence>, uint32_t>> planned;
  for (const PlannedSpan& span : PlanStep(work, Rules(), shape_)) {
    planned.emplace_back(running_[span.sequence].sequence, span.tokens);
  }
  for (const auto& [sequence, tokens] : planned) {
    if (TakeSpan(sequence, tokens, next)) sequence->last_step = next.step.id.v;
  }
}

bool Batcher::TakeSpan(const std::shared_ptr<Sequence>& sequence, uint32_t tokens,
                       StepInFlight& next) {
  auto running = Find(*sequence);
  if (running == running_.end()) return false;  // it had to make room
  if (sequence->ready() > sequence->known()) {  // guesses push nobody out of memory
    const uint64_t has = PrefixCache::Pages(running->lease);
    const uint64_t wants = PagesFor(uint64_t{sequence->submitted()} + tokens);
    if (wants > has && kv_.held_pages() + (wants - has) > kv_.pages()) tokens = 1;
  }
  const SequenceSpan span{running->lease.id(), sequence->submitted(), tokens};
  if (!MakeRoom(*sequence, span.first_position + tokens, next)) return false;
  running = Find(*sequence);
  if (!running->lease.begun()) {
    const std::optional<SequenceFork> fork = kv_.Start(running->lease);
    if (fork.has_value()) next.step.forks.push_back(*fork);
    const bool fresh = sequence->known() == sequence->prompt_tokens();
    if (fresh) sequence->cached_tokens = running->lease.cached();
  }
  sequence->MarkSubmitted(tokens);
  next.step.spans.push_back(span);
  next.parts.push_back({sequence, span});
  kv_.Publish(running->lease, Computed(*sequence));
  return true;
}

bool Batcher::IsIn(const StepInFlight& step, const Sequence& sequence) const {
  return std::any_of(step.parts.begin(), step.parts.end(),
                     [&](const Part& part) { return part.sequence.get() == &sequence; });
}

bool Batcher::MakeRoom(Sequence& sequence, uint32_t length, const StepInFlight& next) {
  while (true) {
    PrefixCache::Lease& lease = Find(sequence)->lease;
    const uint32_t cached = lease.cached();
    if (kv_.Grow(lease, length)) return true;
    if (lease.cached() != cached) {  // it has less to build on, so this is not its next span
      sequence.Restart(lease.cached());
      return false;
    }
    size_t victim = running_.size();
    while (victim > 0 && IsIn(next, *running_[victim - 1].sequence)) --victim;
    if (victim-- == 0 || running_.size() == 1) return false;
    const bool itself = running_[victim].sequence.get() == &sequence;
    preempted_.push_back(running_[victim].sequence);
    Stop(victim);
    if (itself) return false;
  }
}

std::optional<Batcher::StepInFlight> Batcher::Finish(StepId id) {
  const auto it = std::find_if(in_flight_.begin(), in_flight_.end(),
                               [&](const StepInFlight& s) { return s.step.id == id; });
  if (it == in_flight_.end()) return std::nullopt;
  StepInFlight step = std::move(*it);
  in_flight_.erase(it);
  return step;
}

bool Batcher::IsCurrent(const Part& part) const {
  return std::any_of(running_.begin(), running_.end(), [&](const Running& running) {
    return running.sequence == part.sequence && running.lease.id() == part.span.sequence;
  });
}

void Batcher::Observe(const StepInFlight& step, absl::Span<const StageTiming> timings,
                      absl::Duration round_trip) {
  times_.ObserveStep(static_cast<uint32_t>(step.step.tokens()), timings, round_trip);
}

void Batcher::Retire(const StepInFlight& step) {
  for (const Part& part : step.parts) {
    if (!part.sequence->finished() || !IsCurrent(part)) continue;
    Stop(static_cast<size_t>(Find(*part.sequence) - running_.begin()));
  }
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
