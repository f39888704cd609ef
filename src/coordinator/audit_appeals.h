// Chunks that their nodes did not show when they were audited. A node that appeals has them audited
// again.
#ifndef EFEDLLM_COORDINATOR_AUDIT_APPEALS_H_
#define EFEDLLM_COORDINATOR_AUDIT_APPEALS_H_

#include <cstddef>
#include <deque>
#include <map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/ids.h"
#include "coordinator/audit_queue.h"
#include "coordinator/audit_trial.h"

namespace efedllm {

// How an appeal stands.
struct AuditAppeal {
  size_t chunks = 0;    // that are audited again
  size_t waiting = 0;   // of them, without a verdict yet
  size_t unproven = 0;  // of them, that are not as claimed, or not shown again
};

// Thread-safe.
class AuditAppeals {
 public:
  // most: withheld chunks that are remembered, of all nodes; the oldest are forgotten.
  explicit AuditAppeals(size_t most = 1024) : most_(most) {}

  // Every audit's end.
  void OnResult(const AuditResult& result) ABSL_LOCKS_EXCLUDED(mu_);

  // Begins an appeal if the node has none, and gives what is to be audited for it; else nothing.
  std::vector<AuditJob> Begin(NodeId node) ABSL_LOCKS_EXCLUDED(mu_);
  // One without waiting chunks has ended, and is forgotten with this call.
  AuditAppeal Take(NodeId node) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const size_t most_;
  absl::Mutex mu_;
  std::deque<AuditJob> withheld_ ABSL_GUARDED_BY(mu_);
  std::map<NodeId, AuditAppeal> appeals_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_APPEALS_H_
