#include "coordinator/scheduler.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/status_macros.h"
#include "coordinator/batcher.h"
#include "coordinator/sequence.h"
#include "coordinator/serving_metrics.h"
#include "spdlog/spdlog.h"

namespace efedllm {
namespace {

// The thread looks around this often when nothing wakes it: for a cancelled request while all
// stages are busy, a new request while one is idle, an epoch that begins or ends.
constexpr absl::Duration kBusyWait = absl::Milliseconds(20);
constexpr absl::Duration kIdleStageWait = absl::Milliseconds(1);
constexpr absl::Duration kNothingWait = absl::Milliseconds(50);
constexpr absl::Duration kFreshSuccess = absl::Seconds(1);
constexpr size_t kHeadRows = 32;  // rows whose logits are held at once

uint32_t Positions(const PipelineCapacity& capacity, uint32_t context) {
  uint64_t positions = std::min<uint64_t>(context, capacity.chains[0].kv_tokens);
  if (capacity.limits.max_position > 0) {
    positions = std::min<uint64_t>(positions, capacity.limits.max_position);
  }
  return static_cast<uint32_t>(positions);
}

}  // namespace

struct Scheduler::Impl {
  Impl(const Clock& clock, ServedModel& model, Pipeline& pipeline, const SchedulerOptions& options,
       prometheus::Registry& registry)
      : clock(clock),
        model(model),
        pipeline(pipeline),
        options(options),
        metrics(registry),
        batcher(options.max_sequences, options.max_step_tokens) {}

  // The thread, and its parts in their order.
  void Run();
  void TakeIncoming();
  void FollowEpoch();
  void SubmitSteps();
  void WaitForNews();
  void TakeResult(StepResult result);
  void TakeRows(const Batcher::StepInFlight& step, const Matrix& hidden);
  void CountToken(Sequence& sequence);
  void EndEpoch(const absl::Status& why);
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
  Batcher batcher;
  std::optional<Epoch> over;  // this epoch has ended, whatever the pipeline still says
  size_t reported_active = 0;

  std::atomic<uint64_t> last_sequence = 0;

  mutable absl::Mutex mu;
  bool stop ABSL_GUARDED_BY(mu) = false;
  bool draining ABSL_GUARDED_BY(mu) = false;
  bool probe_wanted ABSL_GUARDED_BY(mu) = false;
  std::deque<std::shared_ptr<Sequence>> incoming ABSL_GUARDED_BY(mu);
  absl::Time outage_since ABSL_GUARDED_BY(mu) = absl::InfinitePast();  // InfiniteFuture: it serves
  absl::Time last_success ABSL_GUARDED_BY(mu) = absl::InfinitePast();
  uint64_t successes ABSL_GUARDED_BY(mu) = 0;
  uint32_t max_positions ABSL_GUARDED_BY(mu) = 0;
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
    SubmitSteps();
    Publish();
    WaitForNews();
  }
  TakeIncoming();
  batcher.EndEpoch();
  batcher.FailWaiting(absl::UnavailableError("the coordinator is shutting down"));
  Publish();
}

void Scheduler::Impl::TakeIncoming() {
  absl::MutexLock lock(&mu);
  for (auto& sequence : incoming) batcher.Add(std::move(sequence));
  incoming.clear();
  if (!std::exchange(probe_wanted, false)) return;
  if (batcher.running() + batcher.waiting() > 0) return;  // their steps are the proof
  GenerationInput input;
  input.prompt = {std::max(model.tokenizer->bos(), 0)};
  input.max_tokens = 1;
  auto probe = std::make_shared<Sequence>(SequenceId{++last_sequence}, 0, std::move(input),
                                          std::make_shared<Generation>(1), *model.tokenizer);
  probe->probe = true;
  batcher.Add(std::move(probe));
}

void Scheduler::Impl::FollowEpoch() {
  absl::StatusOr<PipelineCapacity> capacity = pipeline.Capacity();
  if (capacity.ok() && over == capacity->epoch) {
    capacity = absl::UnavailableError("a worker was lost; planning anew");
  }
  if (batcher.serving()) {
    if (capacity.ok() && capacity->epoch == batcher.capacity().epoch) return;
    EndEpoch(capacity.ok() ? absl::AbortedError("a new epoch began") : capacity.status());
  }
  const absl::Time now = clock.Now();
  if (capacity.ok()) {
    batcher.BeginEpoch(*capacity);
    over.reset();
    absl::MutexLock lock(&mu);
    max_positions = Positions(*capacity, model.config.context);
    outage_since = absl::InfiniteFuture();
    stats.reason.clear();
    return;
  }
  absl::MutexLock lock(&mu);
  stats.reason = std::string(capacity.status().message());
  if (outage_since == absl::InfiniteFuture()) outage_since = now;
  if (now - outage_since > options.outage_patience) {
    batcher.FailWaiting(absl::UnavailableError(absl::StrCat(
        "nothing served for ", absl::FormatDuration(options.outage_patience), ": ", stats.reason)));
  }
}

void Scheduler::Impl::EndEpoch(const absl::Status& why) {
  over = batcher.capacity().epoch;
  const size_t begun = batcher.EndEpoch();
  metrics.replays.Increment(static_cast<double>(begun));
  spdlog::log(begun > 0 ? spdlog::level::warn : spdlog::level::info,
              "epoch {} is over, {} sequences will be replayed: {}", over->v, begun,
              std::string(why.message()));
  absl::MutexLock lock(&mu);
  stats.replays += begun;
}

void Scheduler::Impl::SubmitSteps() {
  batcher.DropCancelled();
  while (const Batcher::StepInFlight* next = batcher.NextStep(clock.Now())) {
    const Step& step = next->step;
    Matrix hidden(step.tokens(), model.config.d_model);
    absl::Status status = model.embedding.Lookup(next->Tokens(), hidden.ref());
    if (status.ok()) status = pipeline.Submit(step, 0, std::move(hidden));
    if (status.ok()) continue;
    if (absl::IsAborted(status) || absl::IsUnavailable(status)) return EndEpoch(status);
    spdlog::error("step {} was refused: {}", step.id.v, status.ToString());
    const auto refused = batcher.Finish(step.epoch, step.id);
    return batcher.FailStep(*refused, status);
  }
}

void Scheduler::Impl::WaitForNews() {
  if (batcher.in_flight() > 0) {
    auto result = pipeline.NextResult(batcher.has_idle_stage() ? kIdleStageWait : kBusyWait);
    if (result.has_value()) TakeResult(*std::move(result));
    return;
  }
  while (pipeline.NextResult(absl::ZeroDuration()).has_value()) {
    // Of an epoch that is over.
  }
  absl::MutexLock lock(&mu);
  mu.AwaitWithTimeout(absl::Condition(this, &Impl::HasNews), kNothingWait);
}

void Scheduler::Impl::TakeResult(StepResult result) {
  const auto step = batcher.Finish(result.epoch, result.id);
  if (!step.has_value()) return;  // of an epoch that is over
  if (absl::IsAborted(result.status) || absl::IsUnavailable(result.status)) {
    return EndEpoch(result.status);
  }
  const size_t rows = step->step.tokens();
  if (result.status.ok() && rows > 0 &&
      (result.hidden.rows() != rows || result.hidden.cols() != model.config.d_model)) {
    result.status = absl::InternalError("a step came back in another shape");
  }
  if (!result.status.ok()) {
    spdlog::error("step {} failed: {}", result.id.v, result.status.ToString());
    return batcher.FailStep(*step, result.status);
  }
  const absl::Time now = clock.Now();
  metrics.steps.Increment();
  metrics.step_seconds.Observe(absl::ToDoubleSeconds(now - step->submitted_at));
  metrics.step_rows.Observe(static_cast<double>(rows));
  TakeRows(*step, result.hidden);
  metrics.head_seconds.Observe(absl::ToDoubleSeconds(clock.Now() - now));
  batcher.Retire(*step);
  absl::MutexLock lock(&mu);
  ++stats.steps;
  if (rows == 0) return;
  last_success = now;
  ++successes;
}

void Scheduler::Impl::TakeRows(const Batcher::StepInFlight& step, const Matrix& hidden) {
  struct Row {
    Sequence* sequence;
    uint32_t position;
    size_t row;
  };
  std::vector<Row> wanted;
  size_t row = 0;
  for (const Batcher::Part& part : step.parts) {
    const bool cancelled = part.sequence->generation().cancelled();
    for (uint32_t i = 0; i < part.span.tokens; ++i, ++row) {
      const uint32_t position = part.span.first_position + i;
      if (!cancelled && part.sequence->WantsLogits(position)) {
        wanted.push_back({part.sequence.get(), position, row});
      }
    }
  }
  for (size_t begin = 0; begin < wanted.size(); begin += kHeadRows) {
    const size_t count = std::min(kHeadRows, wanted.size() - begin);
    Matrix in(count, hidden.cols());
    Matrix logits(count, model.config.vocab);
    for (size_t i = 0; i < count; ++i) {
      const float* from = hidden.ref().row(wanted[begin + i].row);
      std::copy(from, from + hidden.cols(), in.row(i));
    }
    model.head->Logits(in.ref(), logits.ref());
    for (size_t i = 0; i < count; ++i) {
      const auto& [sequence, position, row_in_step] = wanted[begin + i];
      // First counted, then said: who has the token finds it in the metrics.
      if (position + 1 == sequence->known() && !sequence->probe) CountToken(*sequence);
      sequence->TakeLogits(position, {logits.row(i), logits.cols()});
    }
  }
  for (const Batcher::Part& part : step.parts) {
    part.sequence->TakePosition(part.span.first_position + part.span.tokens - 1);
  }
}

void Scheduler::Impl::CountToken(Sequence& sequence) {
  const absl::Time now = clock.Now();
  if (sequence.last_token_at.has_value()) {
    metrics.inter_token_seconds.Observe(absl::ToDoubleSeconds(now - *sequence.last_token_at));
  } else {
    metrics.first_token_seconds.Observe(absl::ToDoubleSeconds(now - sequence.arrived));
  }
  sequence.last_token_at = now;
  metrics.generated_tokens.Increment();
  absl::MutexLock lock(&mu);
  ++stats.generated_tokens;
  rate.Add(now, 1);
}

void Scheduler::Impl::Publish() {
  const uint64_t kv_total = batcher.serving() ? batcher.capacity().chains[0].kv_tokens : 0;
  metrics.running.Set(static_cast<double>(batcher.running()));
  metrics.kv_reserved.Set(static_cast<double>(batcher.kv_reserved()));
  metrics.kv_total.Set(static_cast<double>(kv_total));
  metrics.steps_in_flight.Set(static_cast<double>(batcher.in_flight()));
  {
    absl::MutexLock lock(&mu);
    stats.serving = batcher.serving();
    stats.queued = incoming.size() + batcher.waiting();
    stats.running = batcher.running();
    stats.kv_tokens_reserved = batcher.kv_reserved();
    stats.kv_tokens_total = kv_total;
    metrics.queued.Set(static_cast<double>(stats.queued));
  }
  const size_t active = batcher.holding_kv();
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
                     const SchedulerOptions& options, prometheus::Registry& registry)
    : impl_(std::make_unique<Impl>(clock, model, pipeline, options, registry)) {
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
  if (impl.clock.Now() - impl.last_success < kFreshSuccess) return absl::OkStatus();
  const uint64_t seen = impl.successes;
  impl.probe_wanted = true;
  const auto decided = [&impl, seen] {
    impl.mu.AssertReaderHeld();
    return impl.successes != seen || !impl.stats.serving || impl.stop;
  };
  impl.mu.AwaitWithTimeout(absl::Condition(&decided), timeout);
  if (impl.successes != seen) return absl::OkStatus();
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
  stats.generated_tokens_per_second = impl_->rate.PerSecond(impl_->clock.Now());
  return stats;
}

}  // namespace efedllm
