#include "coordinator/audit_runner.h"

#include <spdlog/spdlog.h>

#include <ctime>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "common/logging.h"
#include "layers/compute.h"

namespace efedllm {
namespace {

constexpr absl::Duration kPause = absl::Milliseconds(2);
constexpr absl::Duration kLongPause = absl::Milliseconds(10);

absl::Duration ThreadCpuTime() {
  timespec used{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return absl::DurationFromTimespec(used);
}

}  // namespace

AuditRunner::AuditRunner(AuditRunnerOptions options, AuditRunnerParts parts)
    : options_(std::move(options)),
      parts_(std::move(parts)),
      claims_(options_.remembered_claims),
      queue_(parts_.clock, options_.queue),
      evidence_(parts_.evidence_folder),
      pace_(options_.busy_share * std::thread::hardware_concurrency(), options_.burst),
      thread_([this] { Run(); }) {}

AuditRunner::~AuditRunner() {
  stopping_ = true;
  if (parts_.replayer != nullptr) parts_.replayer->Cancel();
  queue_.Close();
  thread_.join();
}

uint64_t AuditRunner::DrawFor(LotteryPurpose purpose, const TakenClaim& claim) const {
  const ChunkTicket ticket{claim.stage->node, claim.stage->assignment.epoch, claim.receipt_number,
                           claim.chunk_index, claim.claim.outputs.digest};
  return Draw(parts_.secret, purpose, ticket);
}

std::vector<bool> AuditRunner::OnReceipt(const SignedReceipt& receipt,
                                         const std::vector<ClaimPtr>& claims) {
  const auto shared = std::make_shared<const SignedReceipt>(receipt);
  std::vector<bool> picked(claims.size());
  for (size_t i = 0; i < claims.size(); ++i) {
    claims_.Add(claims[i]);
    const NodeId node = claims[i]->stage->node;
    const uint64_t rate = parts_.rate_ppm(node);
    bool prompt = false;
    uint64_t rows_before = 0;
    picked[i] = Wins(DrawFor(LotteryPurpose::kAudit, *claims[i]), rate);
    {
      absl::MutexLock lock(&mu_);
      ++counters_.claims;
      if (picked[i]) ++counters_.picked;
      if (picked[i]) ++counters_.waiting;
      if (picked[i]) prompt = picked_[node]++ < options_.prompt_audits;
      rows_before = signed_rows_[node];
      signed_rows_[node] += claims[i]->claim.tokens;
    }
    if (!picked[i]) continue;
    Enqueue({.claim = claims[i],
             .receipt = shared,
             .rate_ppm = rate,
             .taken = parts_.clock.Now(),
             .rows_before = rows_before,
             .prompt = prompt});
  }
  return picked;
}

// Where it makes another drop out, that is reported.
void AuditRunner::Enqueue(AuditJob job) {
  std::optional<AuditJob> dropped = queue_.Push(std::move(job));
  if (!dropped) return;
  AuditResult result;
  result.job = *std::move(dropped);
  result.outcome = AuditOutcome::kDropped;
  Report(result);
}

void AuditRunner::Report(const AuditResult& result) {
  {
    absl::MutexLock lock(&mu_);
    --counters_.waiting;
    switch (result.outcome) {
      case AuditOutcome::kHonest:
        ++counters_.honest;
        break;
      case AuditOutcome::kLied:
        ++counters_.lied;
        break;
      case AuditOutcome::kWithheld:
        ++counters_.withheld;
        break;
      case AuditOutcome::kAway:
        ++counters_.away;
        break;
      case AuditOutcome::kDropped:
        ++counters_.dropped;
        break;
      case AuditOutcome::kUndecidable:
      case AuditOutcome::kLater:
        ++counters_.undecidable;
        break;
    }
  }
  const TakenClaim& claim = *result.job.claim;
  if (result.outcome == AuditOutcome::kLied) {
    spdlog::warn("audit: node {} lied in epoch {}: {}", NodeName(claim.stage->node),
                 claim.stage->assignment.epoch.v, Printable(result.detail, 400));
  } else if (result.outcome == AuditOutcome::kWithheld) {
    spdlog::warn("audit: node {} in epoch {}: {}", NodeName(claim.stage->node),
                 claim.stage->assignment.epoch.v, Printable(result.detail, 400));
  }
  appeals_.OnResult(result);
  if (!stopping_ && parts_.on_result) parts_.on_result(result);
}

AuditAppeal AuditRunner::Reaudit(NodeId node) {
  for (AuditJob& job : appeals_.Begin(node)) {
    job.attempts = 0;
    job.taken = job.not_before = parts_.clock.Now();
    job.too_late.reset();
    {
      absl::MutexLock lock(&mu_);
      job.rows_before = signed_rows_[node];
      ++counters_.waiting;
    }
    Enqueue(std::move(job));
  }
  return appeals_.Take(node);
}

bool AuditRunner::IsFree() const { return !parts_.busy || !parts_.busy(); }

// Between steps of a replay.
absl::Status AuditRunner::GiveWay() {
  while (!stopping_) {
    if (pace_.MayGoOn(SteadyNow(), ThreadCpuTime(), prompt_ || IsFree())) return absl::OkStatus();
    absl::SleepFor(kPause);
  }
  return absl::CancelledError("the coordinator stops");
}

AuditTrialParts AuditRunner::TrialParts() {
  return {.clock = parts_.clock,
          .claims = claims_,
          .rows = parts_.rows,
          .bases = parts_.bases,
          .model = parts_.model,
          .replay = parts_.replay,
          .layers = parts_.layers,
          .evidence = evidence_,
          .verifiers = parts_.verifiers,
          .owner = parts_.owner,
          .replayer = parts_.replayer,
          .draw = [this](LotteryPurpose purpose,
                         const TakenClaim& claim) { return DrawFor(purpose, claim); },
          .recheck_ppm = parts_.recheck_ppm,
          .planted_ppm = parts_.planted_ppm,
          .before_step = [this] { return GiveWay(); },
          .on_proven = parts_.on_proven};
}

void AuditRunner::Retry(AuditResult result) {
  AuditJob job = std::move(result.job);
  job.not_before = parts_.clock.Now() + options_.retry;
  Enqueue(std::move(job));
}

bool AuditRunner::IsTooLate(const AuditJob& job) const {
  if (parts_.clock.Now() - job.taken > options_.window) return true;
  absl::MutexLock lock(&mu_);
  return signed_rows_.at(job.claim->stage->node) - job.rows_before > options_.window_rows;
}

void AuditRunner::JudgeBatch(AuditTrial& trial, std::vector<AuditJob> batch) {
  // Those that have waited for long are judged with what there is, each alone.
  const bool last = batch.front().attempts >= options_.attempts;
  for (AuditJob& job : batch) ++job.attempts;
  for (AuditResult& result : trial.Judge(std::move(batch), last)) {
    if (stopping_) return;
    if (result.outcome == AuditOutcome::kWithheld && !result.job.too_late) {
      result.job.too_late = IsTooLate(result.job);
    }
    const bool may_come = result.outcome == AuditOutcome::kLater ||
                          // Its node may have computed it again, and not said so yet.
                          (result.outcome == AuditOutcome::kWithheld && result.job.attempts <= 2);
    if (may_come && result.job.attempts <= options_.attempts) {
      Retry(std::move(result));
      continue;
    }
    if (result.outcome == AuditOutcome::kLater) result.outcome = AuditOutcome::kWithheld;
    if (result.outcome == AuditOutcome::kWithheld && parts_.stayed &&
        !parts_.stayed(result.job.claim->stage->node, result.job.taken)) {
      result.outcome = AuditOutcome::kAway;
    }
    if (result.outcome == AuditOutcome::kWithheld &&
        result.job.too_late.value_or(IsTooLate(result.job))) {
      result.outcome = AuditOutcome::kDropped;
    }
    Report(result);
  }
}

void AuditRunner::Run() {
  absl::StatusOr<Compute> compute = Compute::Create(options_.threads, options_.kernels);
  if (!compute.ok()) {
    spdlog::error("no audits: {}", std::string(compute.status().message()));
    return;
  }
  AuditTrial trial(TrialParts(), *compute);
  while (!stopping_) {
    const bool may = pace_.MayBegin(SteadyNow(), ThreadCpuTime(), IsFree());
    std::vector<AuditJob> batch =
        queue_.Take(options_.batch, may ? kLongestWait : kLongPause, !may);
    if (batch.empty()) continue;
    prompt_ = batch.front().prompt;
    {
      absl::MutexLock lock(&mu_);
      judging_ = batch.size();
    }
    JudgeBatch(trial, std::move(batch));
    absl::MutexLock lock(&mu_);
    counters_.rows_replayed = trial.rows_replayed();
    judging_ = 0;
  }
}

AuditCounters AuditRunner::counters() const {
  absl::MutexLock lock(&mu_);
  return counters_;
}

bool AuditRunner::AwaitIdle(absl::Duration timeout) const {
  const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return counters_.waiting == 0 && judging_ == 0;
  };
  const absl::Time until = SteadyNow() + timeout;
  absl::MutexLock lock(&mu_);
  while (!idle() && SteadyNow() < until) {
    mu_.AwaitWithTimeout(absl::Condition(&idle), absl::Milliseconds(100));
  }
  return idle();
}

}  // namespace efedllm
