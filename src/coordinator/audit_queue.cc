#include "coordinator/audit_queue.h"

#include <algorithm>
#include <utility>

namespace efedllm {
namespace {

bool SameStage(const AuditJob& a, const AuditJob& b) {
  const ReceiptStage& first = *a.claim->stage;
  const ReceiptStage& second = *b.claim->stage;
  return first.node == second.node && first.assignment.epoch == second.assignment.epoch;
}

}  // namespace

std::optional<AuditJob> AuditQueue::Push(AuditJob job) {
  absl::MutexLock lock(&mu_);
  if (closed_) return job;
  jobs_.push_back(std::move(job));
  if (jobs_.size() <= capacity_) return std::nullopt;
  AuditJob dropped = std::move(jobs_.front());
  jobs_.pop_front();
  return dropped;
}

bool AuditQueue::IsDue() const {
  const absl::Time now = clock_.Now();
  return std::any_of(jobs_.begin(), jobs_.end(),
                     [now](const AuditJob& job) { return job.not_before <= now; });
}

std::vector<AuditJob> AuditQueue::Take(const AuditBatchLimits& limits, absl::Duration timeout) {
  const auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return closed_ || IsDue(); };
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(&ready), std::min(timeout, kLongestWait));
  std::vector<AuditJob> batch;
  if (closed_) return batch;
  const absl::Time now = clock_.Now();
  const bool prompt = std::any_of(jobs_.begin(), jobs_.end(), [now](const AuditJob& job) {
    return job.prompt && job.not_before <= now;
  });
  // A verdict comes when the whole batch is judged.
  const size_t most_jobs = prompt ? 1 : limits.jobs;
  uint64_t rows = 0;
  for (size_t i = jobs_.size(); i-- > 0 && batch.size() < most_jobs;) {
    AuditJob& job = jobs_[i];
    const bool fits = batch.empty() || (SameStage(job, batch.front()) &&
                                        rows + job.claim->claim.end() <= limits.rows);
    if (job.prompt != prompt || job.not_before > now || !fits) continue;
    rows += job.claim->claim.end();
    batch.push_back(std::move(job));
    jobs_.erase(jobs_.begin() + static_cast<ptrdiff_t>(i));
  }
  return batch;
}

void AuditQueue::Close() {
  absl::MutexLock lock(&mu_);
  closed_ = true;
}

size_t AuditQueue::size() const {
  absl::MutexLock lock(&mu_);
  return jobs_.size();
}

}  // namespace efedllm
