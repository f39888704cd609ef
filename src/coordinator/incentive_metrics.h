// What Prometheus sees of audits, trust and the ledger.
#ifndef EFEDLLM_COORDINATOR_INCENTIVE_METRICS_H_
#define EFEDLLM_COORDINATOR_INCENTIVE_METRICS_H_

#include <map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/chrome_trace.h"
#include "coordinator/incentive_status.h"
#include "incentive/ledger_reader.h"
#include "prometheus/metric_family.h"

namespace efedllm {

// Thread-safe.
class IncentiveMetrics {
 public:
  explicit IncentiveMetrics(const IncentiveParts& parts) : parts_(parts) {}

  // nodes: their names.
  void Collect(const std::map<NodeId, TracedNode>& nodes,
               std::vector<prometheus::MetricFamily>& families) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void CollectLedger(std::vector<prometheus::MetricFamily>& families) const
      ABSL_LOCKS_EXCLUDED(mu_);

  const IncentiveParts parts_;
  mutable absl::Mutex mu_;
  mutable EscrowFlows flows_ ABSL_GUARDED_BY(mu_);  // of all entries up to the last scrape
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_INCENTIVE_METRICS_H_
