#include "coordinator/scheduler.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/status_macros.h"
#include "coordinator/sequence.h"
#include "coordinator/serving_loop.h"
#include "coordinator/serving_metrics.h"

namespace efedllm {
namespace {

// How soon a new epoch is noticed while nothing runs.
constexpr absl::Duration kNothingWait = absl::Milliseconds(50);
constexpr absl::Duration kFreshPass = absl::Seconds(1);

}  // namespace

struct Scheduler::Impl {
  Impl(const Clock& clock, ServedModel& model, Pipeline& pipeline, const SchedulerOptions& options,
       prometheus::Registry& registry, const StepObservers& observers, DraftModel* draft_model)
      : clock(clock),
        model(model),
        pipeline(pipeline),
        options(options),
        metrics(registry),
        speculator(draft_model, registry),
        loop(clock, model, pipeline, {options.max_sequences, options.max_step_tokens}, speculator,
             metrics, observers) {}

  // The thread, and its parts in their order.
  void Run();
  void TakeIncoming();
  void FollowEpoch();
  void Publish();

  absl::Status Admissible(const std::vector<std::shared_ptr<Sequence>>& sequences) const
      ABSL_SHARED_LOCKS_REQUIRED(mu);
  bool HasNews() const ABSL_SHARED_LOCKS_REQUIRED(mu) {
    return stop || probe_wanted || !incoming.empty();
  }
  bool Idle() const ABSL_SHARED_LOCKS_REQUIRED(mu) {
    return stats.queued == 0 && stats.running == 0;
  }

  // Constant after construction.
  const Clock& clock;
  ServedModel& model;
  Pipeline& pipeline;
  const SchedulerOptions options;
  SchedulerMetrics metrics;

  // The thread's own.
  Speculator speculator;
  ServingLoop loop;
  size_t reported_active = 0;

  std::atomic<uint64_t> last_sequence = 0;

  mutable absl::Mutex mu;
  bool stop ABSL_GUARDED_BY(mu) = false;
  bool draining ABSL_GUARDED_BY(mu) = false;
  bool probe_wanted ABSL_GUARDED_BY(mu) = false;
  std::deque<std::shared_ptr<Sequence>> incoming ABSL_GUARDED_BY(mu);
  absl::Time outage_since ABSL_GUARDED_BY(mu) = absl::InfinitePast();  // InfiniteFuture: it serves
  ServingCounts counts ABSL_GUARDED_BY(mu);
  uint32_t max_positions ABSL_GUARDED_BY(mu) = 0;  // of the last epoch that served
  SchedulerStats stats ABSL_GUARDED_BY(mu);
  RateMeter rate ABSL_GUARDED_BY(mu);

  std::thread thread;
};

void Scheduler::Impl::Run() {
  while (true) {
    {
      absl::MutexLock lock(&mu);
      if (stop) break;
    }
    TakeIncoming();
    FollowEpoch();
    loop.SendSteps();
    Publish();
    if (loop.TakeStep()) continue;
    absl::MutexLock lock(&mu);
    mu.AwaitWithTimeout(absl::Condition(this, &Impl::HasNews), kNothingWait);
  }
  TakeIncoming();
  loop.FailAll(absl::UnavailableError("the coordinator is shutting down"));
  Publish();
}

void Scheduler::Impl::TakeIncoming() {
  absl::MutexLock lock(&mu);
  for (auto& sequence : incoming) loop.Add(std::move(sequence));
  incoming.clear();
  if (!std::exchange(probe_wanted, false)) return;
  if (loop.running() + loop.waiting() > 0) return;  // their steps are the proof
  GenerationInput input;
  input.prompt = {std::max(model.tokenizer->bos(), 0)};
  input.max_tokens = 1;
  auto probe = std::make_shared<Sequence>(SequenceId{++last_sequence}, 0, std::move(input),
                                          std::make_shared<Generation>(1), *model.tokenizer);
  probe->probe = true;
  loop.Add(std::move(probe));
}

void Scheduler::Impl::FollowEpoch() {
  const absl::Status serves = loop.FollowEpoch();
  const absl::Time now = clock.Now();
  absl::MutexLock lock(&mu);
  stats.serving = serves.ok();  // together with the reason
  if (serves.ok()) {
    max_positions = loop.max_positions();
    outage_since = absl::InfiniteFuture();
    stats.reason.clear();
    return;
  }
  stats.reason = std::string(serves.message());
  if (outage_since == absl::InfiniteFuture()) outage_since = now;
  if (now - outage_since > options.outage_patience) {
    loop.FailWaiting(absl::UnavailableError(absl::StrCat(
        "nothing served for ", absl::FormatDuration(options.outage_patience), ": ", stats.reason)));
  }
}

void Scheduler::Impl::Publish() {
  metrics.running.Set(static_cast<double>(loop.running()));
  metrics.kv_held.Set(static_cast<double>(loop.kv_tokens_held()));
  metrics.kv_cached.Set(static_cast<double>(loop.kv_tokens_cached()));
  metrics.kv_total.Set(static_cast<double>(loop.kv_tokens_total()));
  metrics.steps_in_flight.Set(static_cast<double>(loop.in_flight()));
  {
    absl::MutexLock lock(&mu);
    rate.Add(clock.Now(), loop.counts().generated_tokens - counts.generated_tokens);
    counts = loop.counts();
    stats.queued = incoming.size() + loop.waiting();
    stats.running = loop.running();
    stats.kv_tokens_held = loop.kv_tokens_held();
    stats.kv_tokens_cached = loop.kv_tokens_cached();
    stats.kv_tokens_total = loop.kv_tokens_total();
    metrics.queued.Set(static_cast<double>(stats.queued));
  }
  const size_t active = loop.holding_kv();
  if (active != std::exchange(reported_active, active)) pipeline.SetActiveSequences(active);
}

absl::Status Scheduler::Impl::Admissible(
    const std::vector<std::shared_ptr<Sequence>>& sequences) const {
  if (stop || draining) return absl::UnavailableError("the coordinator is shutting down");
  if (!stats.serving && clock.Now() - outage_since > options.outage_admission) {
    return absl::UnavailableError(stats.reason);
  }
  if (sequences.size() > options.max_queue) {
    return absl::InvalidArgumentError(absl::StrCat("a request may have ", options.max_queue,
                                                   " choices; this one has ", sequences.size()));
  }
  for (const auto& sequence : sequences) {
    if (sequence->max_positions() > max_positions) {
      return absl::InvalidArgumentError(absl::StrCat("prompt and output are ",
                                                     sequence->max_positions(), " tokens; at most ",
                                                     max_positions, " fit"));
    }
  }
  if (stats.queued + sequences.size() > options.max_queue) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", stats.queued, " sequences wait"));
  }
  return absl::OkStatus();
}

Scheduler::Scheduler(const Clock& clock, ServedModel& model, Pipeline& pipeline,
                     const SchedulerOptions& options, prometheus::Registry& registry,
                     const StepObservers& observers, DraftModel* draft_model)
    : impl_(std::make_unique<Impl>(clock, model, pipeline, options, registry, observers,
                                   draft_model)) {
  impl_->FollowEpoch();
  impl_->Publish();
  impl_->thread = std::thread([impl = impl_.get()] { impl->Run(); });
}

Scheduler::~Scheduler() {
  {
    absl::MutexLock lock(&impl_->mu);
    impl_->stop = true;
  }
  impl_->thread.join();
}

absl::StatusOr<uint32_t> Scheduler::MaxPositions() const {
  absl::MutexLock lock(&impl_->mu);
  RETURN_IF_ERROR(impl_->Admissible({}));
  return impl_->max_positions;
}

absl::StatusOr<std::shared_ptr<Generation>> Scheduler::Submit(std::vector<GenerationInput> choices,
                                                              std::string request_id) {
  Impl& impl = *impl_;
  const absl::Time now = impl.clock.Now();
  auto generation = std::make_shared<Generation>(choices.size(), std::move(request_id));
  std::vector<std::shared_ptr<Sequence>> sequences;
  for (size_t i = 0; i < choices.size(); ++i) {
    sequences.push_back(std::make_shared<Sequence>(SequenceId{++impl.last_sequence}, i,
                                                   std::move(choices[i]), generation,
                                                   *impl.model.tokenizer));
    sequences.back()->arrived = now;
  }
  absl::MutexLock lock(&impl.mu);
  RETURN_IF_ERROR(impl.Admissible(sequences));
  for (auto& sequence : sequences) {
    impl.stats.prompt_tokens += sequence->prompt_tokens();
    impl.metrics.prompt_tokens.Increment(static_cast<double>(sequence->prompt_tokens()));
    impl.incoming.push_back(std::move(sequence));
  }
  impl.stats.queued += sequences.size();
  return generation;
}

absl::Status Scheduler::Probe(absl::Duration timeout) {
  Impl& impl = *impl_;
  absl::MutexLock lock(&impl.mu);
  if (!impl.stats.serving) return absl::UnavailableError(impl.stats.reason);
  if (impl.clock.Now() - impl.counts.last_pass < kFreshPass) return absl::OkStatus();
  const uint64_t seen = impl.counts.passes;
  impl.probe_wanted = true;
  const auto decided = [&impl, seen] {
    impl.mu.AssertReaderHeld();
    return impl.counts.passes != seen || !impl.stats.serving || impl.stop;
  };
  impl.mu.AwaitWithTimeout(absl::Condition(&decided), timeout);
  if (impl.counts.passes != seen) return absl::OkStatus();
  if (!impl.stats.serving) return absl::UnavailableError(impl.stats.reason);
  return absl::DeadlineExceededError(
      absl::StrCat("no step came back through all stages within ", absl::FormatDuration(timeout)));
}

void Scheduler::Drain() {
  absl::MutexLock lock(&impl_->mu);
  impl_->draining = true;
}

bool Scheduler::WaitIdle(absl::Duration timeout) const {
  absl::MutexLock lock(&impl_->mu);
  return impl_->mu.AwaitWithTimeout(absl::Condition(impl_.get(), &Impl::Idle), timeout);
}

SchedulerStats Scheduler::Stats() const {
  absl::MutexLock lock(&impl_->mu);
  SchedulerStats stats = impl_->stats;
  stats.generated_tokens = impl_->counts.generated_tokens;
  stats.steps = impl_->counts.steps;
  stats.replays = impl_->counts.replays;
  stats.preemptions = impl_->counts.preemptions;
  stats.generated_tokens_per_second = impl_->rate.PerSecond(impl_->clock.Now());
  return stats;
}

}  // namespace efedllm
