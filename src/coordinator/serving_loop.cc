#include "coordinator/serving_loop.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "layers/kv_cache.h"
#include "spdlog/spdlog.h"

namespace efedllm {
namespace {

// The thread looks around this often though nothing comes back: for a cancelled request while all
// stages are busy, for a new one while one is idle.
constexpr absl::Duration kBusyWait = absl::Milliseconds(20);
constexpr absl::Duration kIdleStageWait = absl::Milliseconds(1);
constexpr size_t kHeadRows = 32;  // rows whose logits are held at once
constexpr uint64_t kPage = KvCache::kPagePositions;

// A failed request fails with all its choices: the others are dropped as if the client had gone.
void Fail(Sequence& sequence, const absl::Status& status) {
  GenerationEvent event;
  event.status = status;
  sequence.generation().Push(std::move(event));
  sequence.generation().Cancel();
}

}  // namespace

ServingLoop::ServingLoop(const Clock& clock, ServedModel& model, Pipeline& pipeline,
                         const ServingLimits& limits, Speculator& speculator,
                         SchedulerMetrics& metrics, const StepObservers& observers)
    : clock_(clock),
      model_(model),
      pipeline_(pipeline),
      limits_(limits),
      speculator_(speculator),
      metrics_(metrics),
      observers_(observers) {}

void ServingLoop::FailWaiting(const absl::Status& status) {
  for (const auto& sequence : waiting_.Take([](const Sequence&) { return true; })) {
    Fail(*sequence, status);
  }
  for (const auto& sequences : carried_) {
    for (const Batcher::Carried& one : sequences) Fail(*one.sequence, status);
  }
  carried_.clear();
}

void ServingLoop::FailAll(const absl::Status& status) {
  for (const auto& chain : chains_) {
    for (auto& sequence : chain->TakeAll()) waiting_.Push(std::move(sequence));
  }
  FailWaiting(status);
}

// Cancelled, or too late.
void ServingLoop::DropDead() {
  const absl::Time now = clock_.Now();
  const auto dead = [&](const Sequence& sequence) {
    return sequence.generation().cancelled() || sequence.deadline() <= now;
  };
  std::vector<std::shared_ptr<Sequence>> dropped = waiting_.Take(dead);
  for (const auto& chain : chains_) {
    for (auto& sequence : chain->Take(dead)) dropped.push_back(std::move(sequence));
  }
  for (auto& sequences : carried_) {
    std::erase_if(sequences, [&](const Batcher::Carried& one) {
      if (!dead(*one.sequence)) return false;
      dropped.push_back(one.sequence);
      return true;
    });
  }
  for (const auto& sequence : dropped) {
    if (sequence->generation().cancelled()) continue;
    Fail(*sequence, absl::DeadlineExceededError("the request's timeout has passed"));
  }
  waiting_.Forget([this](const std::string& owner) {
    return std::any_of(chains_.begin(), chains_.end(),
                       [&](const auto& chain) { return chain->Runs(owner); });
  });
}

// Where most of it is known already; else where the fewest run.
Batcher* ServingLoop::ChainFor(const Sequence& sequence) {
  Batcher* best = nullptr;
  for (const auto& chain : chains_) {
    if (!chain->Fits(sequence)) continue;
    const auto rank = [&](const Batcher& b) {
      // A chain that takes twice as long for a step is full with half as many.
      const double load =
          static_cast<double>(b.running() + 1) * std::max(b.times().Interval(1, 1), 1e-6);
      return std::make_pair(-static_cast<int64_t>(b.Known(sequence).pages), load);
    };
    if (best == nullptr || rank(*chain) < rank(*best)) best = chain.get();
  }
  return best;
}

Batcher* ServingLoop::Preempt(const Sequence& by) {
  for (const auto& chain : chains_) {
    if (!chain->CanHold(by)) continue;
    while (!chain->Fits(by)) {
      std::shared_ptr<Sequence> less_important = chain->Preempt(by.priority());
      if (less_important == nullptr) break;
      MadeRoom({std::move(less_important)});
    }
    if (chain->Fits(by)) return chain.get();
  }
  return nullptr;
}

void ServingLoop::Admit() {
  while (const std::shared_ptr<Sequence>* front = waiting_.Front()) {
    const std::shared_ptr<Sequence> next = *front;
    Batcher* chain = ChainFor(*next);
    if (chain == nullptr) chain = Preempt(*next);
    if (chain == nullptr) {
      const bool never = std::none_of(chains_.begin(), chains_.end(),
                                      [&](const auto& c) { return c->CanHold(*next); });
      if (!never) return;  // nobody overtakes: no starving
      waiting_.Pop();
      Fail(*next, absl::UnavailableError(absl::StrCat(
                      "the request needs KV memory for ", next->max_positions(),
                      " token positions, and the nodes have it for ", max_positions())));
      continue;
    }
    chain->Admit(waiting_.Pop());  // whom it took the place of is less important, so it is in front
  }
}

void ServingLoop::MadeRoom(std::vector<std::shared_ptr<Sequence>> sequences) {
  counts_.preemptions += sequences.size();
  metrics_.preemptions.Increment(static_cast<double>(sequences.size()));
  for (auto& sequence : sequences) {
    sequence->Restart(0);
    waiting_.Push(std::move(sequence));
  }
}

size_t ServingLoop::Replay(Batcher& chain) {
  size_t begun = 0;
  for (auto& sequence : chain.TakeAll()) {
    begun += sequence->submitted() > 0;
    sequence->Restart(0);
    waiting_.Push(std::move(sequence));
  }
  counts_.replays += begun;
  metrics_.replays.Increment(static_cast<double>(begun));
  return begun;
}

void ServingLoop::SendSteps() {
  DropDead();
  if (!serving()) return;
  Admit();
  for (size_t i = 0; i < chains_.size() && serving(); ++i) SendStepsOf(*chains_[i]);
}

void ServingLoop::SendStepsOf(Batcher& chain) {
  const auto draft = [this](const Batcher::Decodes& decodes) {
    const auto rows = static_cast<uint32_t>(decodes.sequences.size());
    speculator_.Draft(decodes.sequences, {.seconds = decodes.seconds,
                                          .rows = rows,
                                          .tokens = static_cast<double>(rows),
                                          .room = decodes.room});
  };
  while (true) {
    const absl::Time begin = clock_.Now();
    const Batcher::StepInFlight* next = chain.NextStep(StepId{last_step_ + 1}, begin, draft);
    MadeRoom(chain.TakePreempted());
    if (next == nullptr) return;
    ++last_step_;
    for (const Batcher::Part& part : next->parts) {
      waiting_.Charge(part.sequence->owner(), part.span.tokens);
    }
    const Step& step = next->step;
    for (const SequenceFork& fork : step.forks) {
      metrics_.prefix_cache_tokens.Increment(fork.tokens);
    }
    // A replay for later stages alone begins with what the nodes kept.
    const bool from_tokens = !step.replay() || step.replay_stages.front() == 0;
    Matrix hidden(from_tokens ? step.tokens() : 0, model_.config.d_model);
    absl::Status status;
    if (from_tokens) status = model_.embedding.Lookup(next->Tokens(), hidden.ref());
    if (status.ok()) status = pipeline_.Submit(step, chain.options().chain, std::move(hidden));
    sending_ += clock_.Now() - begin;
    if (status.ok()) continue;
    if (absl::IsAborted(status) || absl::IsUnavailable(status)) return EndEpoch(status);
    spdlog::error("step {} was refused: {}", step.id.v, status.ToString());
    const auto refused = chain.Finish(step.id);
    return FailStep(chain, *refused, status);
  }
}

// Its sequences end. What the nodes hold for the others is not sure any more, since steps that came
// later were built upon it: they are computed anew.
void ServingLoop::FailStep(Batcher& chain, const Batcher::StepInFlight& step,
                           const absl::Status& status) {
  for (const Batcher::Part& part : step.parts) {
    // What a replay could not bring back is computed from the tokens.
    if (chain.IsCurrent(part) && !step.step.replay()) Fail(*part.sequence, status);
  }
  chain.Take([](const Sequence& sequence) { return sequence.generation().cancelled(); });
  Replay(chain);
  chain.ForgetCached(step);
}

bool ServingLoop::TakeStep() {
  if (in_flight() == 0) {
    while (pipeline_.NextResult(absl::ZeroDuration()).has_value()) {
      // Of an epoch that is over.
    }
    return false;
  }
  const bool idle = std::any_of(chains_.begin(), chains_.end(),
                                [](const auto& chain) { return chain->has_idle_stage(); });
  auto result = pipeline_.NextResult(idle ? kIdleStageWait : kBusyWait);
  if (result.has_value()) TakeResult(*std::move(result));
  return true;
}

void ServingLoop::TakeResult(StepResult result) {
  if (!serving() || result.epoch != capacity_->epoch || result.chain >= chains_.size()) return;
  Batcher& chain = *chains_[result.chain];
  if (absl::IsAborted(result.status) || absl::IsUnavailable(result.status)) {
    return EndEpoch(result.status);  // with the step still in flight: it confirmed nothing
  }
  const auto step = chain.Finish(result.id);
  if (!step.has_value()) return;
  const size_t rows = step->step.tokens();
  if (result.status.ok() && rows > 0 && !step->step.replay() &&
      (result.hidden.rows() != rows || result.hidden.cols() != model_.config.d_model)) {
    result.status = absl::InternalError("a step came back in another shape");
  }
  if (!result.status.ok()) {
    spdlog::error("step {} failed: {}", result.id.v, result.status.ToString());
    return FailStep(chain, *step, result.status);
  }
  const absl::Time now = clock_.Now();
  metrics_.steps.Increment();
  metrics_.step_seconds.Observe(absl::ToDoubleSeconds(now - step->submitted_at));
  metrics_.step_rows.Observe(static_cast<double>(rows));
  if (step->step.replay()) {
    ++counts_.steps;
    return;
  }
  if (rows > 0) {
    EndPause();
    chain.Observe(*step, result.timings, now - step->submitted_at);
  }
  TakeRows(chain, *step, result.hidden);
  observers_.OnStep(*step, result, now, clock_.Now());
  chain.Retire(*step);
  ++counts_.steps;
  if (rows == 0) return;
  counts_.last_pass = now;
  ++counts_.passes;
}

void ServingLoop::TakeRows(Batcher& chain, const Batcher::StepInFlight& step,
                           const Matrix& hidden) {
  struct Row {
    Sequence* sequence;
    uint32_t position;
    size_t row;
  };
  const absl::Time begin = clock_.Now();
  std::vector<Row> wanted;
  size_t row = 0;
  for (const Batcher::Part& part : step.parts) {
    const size_t first = row;
    row += part.span.tokens;
    if (part.sequence->generation().cancelled() || !chain.IsCurrent(part)) continue;
    for (uint32_t i = 0; i < part.span.tokens; ++i) {
      const uint32_t position = part.span.first_position + i;
      if (part.sequence->WantsLogits(position)) {
        wanted.push_back({part.sequence.get(), position, first + i});
      }
    }
  }
  for (size_t done = 0; done < wanted.size(); done += kHeadRows) {
    const size_t count = std::min(kHeadRows, wanted.size() - done);
    Matrix in(count, hidden.cols());
    Matrix logits(count, model_.config.vocab);
    for (size_t i = 0; i < count; ++i) {
      const float* from = hidden.ref().row(wanted[done + i].row);
      std::copy(from, from + hidden.cols(), in.row(i));
    }
    model_.head->Logits(in.ref(), logits.ref());
    for (size_t i = 0; i < count; ++i) {
      const auto& [sequence, position, row_in_step] = wanted[done + i];
      // First counted, then said: who has the token finds it in the metrics.
      if (sequence->SamplesAt(position) && !sequence->probe) CountToken(*sequence);
      sequence->TakeLogits(position, {logits.row(i), logits.cols()});
    }
  }
  for (const Batcher::Part& part : step.parts) {
    if (!chain.IsCurrent(part)) continue;
    part.sequence->TakePosition(part.span.first_position + part.span.tokens - 1);
    speculator_.Observe(*part.sequence);
  }
  if (wanted.empty()) return;
  const absl::Duration took = clock_.Now() - begin;
  // All that this thread does for a step: steps that are small wait for it, too.
  chain.ObserveHead(static_cast<uint32_t>(wanted.size()),
                    took + std::exchange(sending_, absl::ZeroDuration()));
  metrics_.head_seconds.Observe(absl::ToDoubleSeconds(took));
}

void ServingLoop::CountToken(Sequence& sequence) {
  const absl::Time now = clock_.Now();
  if (sequence.last_token_at.has_value()) {
    metrics_.inter_token_seconds.Observe(absl::ToDoubleSeconds(now - *sequence.last_token_at));
  } else {
    metrics_.first_token_seconds.Observe(absl::ToDoubleSeconds(now - sequence.arrived));
  }
  sequence.last_token_at = now;
  metrics_.generated_tokens.Increment();
  ++counts_.generated_tokens;
}

uint32_t ServingLoop::max_positions() const {
  if (!serving()) return 0;
  uint64_t most = 0;
  for (const ChainCapacity& chain : capacity_->chains) {
    most = std::max(most, chain.kv_tokens / kPage * kPage);
  }
  most = std::min<uint64_t>(most, model_.config.context);
  if (capacity_->limits.max_position > 0) {
    most = std::min<uint64_t>(most, capacity_->limits.max_position);
  }
  return static_cast<uint32_t>(most);
}

size_t ServingLoop::running() const {
  size_t sum = 0;
  for (const auto& chain : chains_) sum += chain->running();
  return sum;
}

size_t ServingLoop::in_flight() const {
  size_t sum = 0;
  for (const auto& chain : chains_) sum += chain->in_flight();
  return sum;
}

size_t ServingLoop::carried() const {
  size_t sum = 0;
  for (const auto& sequences : carried_) sum += sequences.size();
  return sum;
}

size_t ServingLoop::holding_kv() const {
  size_t sum = carried();
  for (const auto& chain : chains_) sum += chain->holding_kv();
  return sum;
}

uint64_t ServingLoop::kv_tokens_held() const {
  uint64_t pages = 0;
  for (const auto& chain : chains_) pages += chain->kv().held_pages();
  return pages * kPage;
}

uint64_t ServingLoop::kv_tokens_cached() const {
  uint64_t pages = 0;
  for (const auto& chain : chains_) pages += chain->kv().used_pages() - chain->kv().held_pages();
  return pages * kPage;
}

uint64_t ServingLoop::kv_tokens_total() const {
  uint64_t pages = 0;
  for (const auto& chain : chains_) pages += chain->kv().pages();
  return pages * kPage;
}

}  // namespace efedllm
