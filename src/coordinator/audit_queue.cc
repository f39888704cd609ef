#include "coordinator/audit_queue.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"

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
  prompt_jobs_ += job.prompt ? 1 : 0;
  jobs_.push_back(std::move(job));
  if (jobs_.size() <= capacity_) return std::nullopt;
  AuditJob dropped = std::move(jobs_.front());
  jobs_.pop_front();
  prompt_jobs_ -= dropped.prompt ? 1 : 0;
  return dropped;
}

bool AuditQueue::IsDue(bool prompt_only) const {
  if (prompt_only && prompt_jobs_ == 0) return false;
  const absl::Time now = clock_.Now();
  return std::any_of(jobs_.begin(), jobs_.end(), [&](const AuditJob& job) {
    return job.not_before <= now && (job.prompt || !prompt_only);
  });
}

size_t AuditQueue::Begin(bool prompt, absl::Time now) const {
  size_t first = jobs_.size();
  uint64_t longest_ago = UINT64_MAX;
  for (size_t i = jobs_.size(); i-- > 0;) {
    if (jobs_[i].prompt != prompt || jobs_[i].not_before > now) continue;
    const auto turn = turns_.find(jobs_[i].claim->stage->node);
    const uint64_t taken = turn == turns_.end() ? 0 : turn->second;
    if (taken >= longest_ago) continue;
    longest_ago = taken;
    first = i;
  }
  return first;
}

std::vector<AuditJob> AuditQueue::Take(const AuditBatchLimits& limits, absl::Duration timeout,
                                       bool prompt_only) {
  const auto ready = [&]()
                         ABSL_SHARED_LOCKS_REQUIRED(mu_) { return closed_ || IsDue(prompt_only); };
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(&ready), std::min(timeout, kLongestWait));
  std::vector<AuditJob> batch;
  if (closed_) return batch;
  const absl::Time now = clock_.Now();
  const bool prompt = IsDue(true);
  if (prompt_only && !prompt) return batch;
  // A verdict comes when the whole batch is judged.
  const size_t most_jobs = prompt ? 1 : limits.jobs;
  uint64_t rows = 0;
  absl::flat_hash_map<SequenceId, uint32_t> replayed;  // positions of each sequence
  const size_t first = Begin(prompt, now);
  if (first < jobs_.size()) turns_[jobs_[first].claim->stage->node] = ++turn_;
  for (size_t i = std::min(first + 1, jobs_.size()); i-- > 0 && batch.size() < most_jobs;) {
    AuditJob& job = jobs_[i];
    if (job.prompt != prompt || job.not_before > now) continue;
    if (!batch.empty() && !SameStage(job, batch.front())) continue;
    const uint32_t end = job.claim->claim.end();
    uint32_t& known = replayed[job.claim->claim.sequence];
    const uint32_t more = end - std::min(end, known);
    if (!batch.empty() && rows + more > limits.rows) continue;
    rows += more;
    known = std::max(known, end);
    prompt_jobs_ -= job.prompt ? 1 : 0;
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
