// The audits that were decided on and not made yet.
#ifndef EFEDLLM_COORDINATOR_AUDIT_QUEUE_H_
#define EFEDLLM_COORDINATOR_AUDIT_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/receipt.h"
#include "common/clock.h"
#include "common/ids.h"
#include "coordinator/audit_claims.h"

namespace efedllm {

struct AuditJob {
  ClaimPtr claim;
  std::shared_ptr<const SignedReceipt> receipt;  // that the claim stands in
  uint64_t rate_ppm = 0;                         // at which it was chosen
  absl::Time taken = absl::InfinitePast();       // when the receipt came, by the steady clock
  uint64_t rows_before = 0;                      // that its node had signed for until then
  int attempts = 0;                              // made so far
  // Set when its node shows nothing for the first time: whether it need not any more.
  std::optional<bool> too_late = std::nullopt;
  bool appealed = false;  // audited again for an appeal
  bool prompt = false;    // one of its node's first
  absl::Time not_before = absl::InfinitePast();
};

// What one pass replays at most; a single job may have more rows. Chunks of one sequence share
// them.
struct AuditBatchLimits {
  size_t jobs = 16;
  uint64_t rows = 256;
};

// Thread-safe. Full: the oldest job makes room.
class AuditQueue {
 public:
  // clock is borrowed.
  AuditQueue(const Clock& clock, size_t capacity) : clock_(clock), capacity_(capacity) {}

  // The job that was dropped for it, if any.
  std::optional<AuditJob> Push(AuditJob job) ABSL_LOCKS_EXCLUDED(mu_);
  // Jobs that are due of one stage of one epoch, the newest first, of the node whose turn it is; or
  // one prompt job alone, if there is any. Where audits can't keep up, what a node does now is
  // found out now, and of each as soon as of the others. Waits up to timeout (kLongestWait at most)
  // for one. prompt_only: others are left where they are. Empty: there is none, or the queue is
  // closed.
  std::vector<AuditJob> Take(const AuditBatchLimits& limits, absl::Duration timeout,
                             bool prompt_only) ABSL_LOCKS_EXCLUDED(mu_);
  void Close() ABSL_LOCKS_EXCLUDED(mu_);

  size_t size() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  bool IsDue(bool prompt_only) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // Where the next batch begins, among jobs that are prompt or are not, and due; size(): nowhere.
  size_t Begin(bool prompt, absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  const Clock& clock_;
  const size_t capacity_;
  mutable absl::Mutex mu_;
  std::deque<AuditJob> jobs_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  size_t prompt_jobs_ ABSL_GUARDED_BY(mu_) = 0;  // of jobs_
  uint64_t turn_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<NodeId, uint64_t> turns_ ABSL_GUARDED_BY(mu_);  // when each had its last
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_QUEUE_H_
