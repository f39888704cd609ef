#include "coordinator/audit_appeals.h"

#include <algorithm>
#include <utility>

namespace efedllm {

void AuditAppeals::OnResult(const AuditResult& result) {
  const NodeId node = result.job.claim->stage->node;
  absl::MutexLock lock(&mu_);
  if (result.outcome == AuditOutcome::kWithheld) {
    withheld_.push_back(result.job);
    withheld_.back().appealed = false;
    if (withheld_.size() > most_) withheld_.pop_front();
  }
  const auto found = appeals_.find(node);
  if (!result.job.appealed || found == appeals_.end() || found->second.waiting == 0) return;
  --found->second.waiting;
  if (result.outcome != AuditOutcome::kHonest) ++found->second.unproven;
}

std::vector<AuditJob> AuditAppeals::Begin(NodeId node) {
  absl::MutexLock lock(&mu_);
  std::vector<AuditJob> jobs;
  const auto [appeal, added] = appeals_.try_emplace(node);
  if (!added) return jobs;
  std::deque<AuditJob> others;
  for (AuditJob& job : withheld_) {
    if (job.claim->stage->node == node) {
      jobs.push_back(std::move(job));
      jobs.back().appealed = true;
    } else {
      others.push_back(std::move(job));
    }
  }
  withheld_ = std::move(others);
  appeal->second.chunks = appeal->second.waiting = jobs.size();
  return jobs;
}

AuditAppeal AuditAppeals::Take(NodeId node) {
  absl::MutexLock lock(&mu_);
  const auto found = appeals_.find(node);
  if (found == appeals_.end()) return {};
  const AuditAppeal appeal = found->second;
  if (appeal.waiting == 0) appeals_.erase(found);
  return appeal;
}

}  // namespace efedllm
