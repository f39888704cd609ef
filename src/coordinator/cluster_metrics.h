// What Prometheus sees of the nodes: made anew at every scrape, so that a node that is gone is
// gone.
#ifndef EFEDLLM_COORDINATOR_CLUSTER_METRICS_H_
#define EFEDLLM_COORDINATOR_CLUSTER_METRICS_H_

#include <functional>
#include <map>
#include <vector>

#include "common/clock.h"
#include "coordinator/chrome_trace.h"
#include "coordinator/epoch_keeper.h"
#include "coordinator/incentive_metrics.h"
#include "coordinator/receipt_checker.h"
#include "coordinator/stage_meters.h"
#include "prometheus/collectable.h"

namespace efedllm {

// Thread-safe.
class ClusterMetrics final : public prometheus::Collectable {
 public:
  // status: see EpochKeeper::Status. The others are borrowed and outlive this. receipts: null where
  // nobody checks any.
  ClusterMetrics(const Clock& clock, std::function<ClusterStatus()> status,
                 const StageMeters& meters, const ReceiptChecker* receipts = nullptr,
                 const IncentiveParts& incentive = {})
      : clock_(clock),
        status_(std::move(status)),
        meters_(meters),
        receipts_(receipts),
        incentive_(incentive) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Clock& clock_;
  const std::function<ClusterStatus()> status_;
  const StageMeters& meters_;
  const ReceiptChecker* const receipts_;
  const IncentiveMetrics incentive_;
};

// What a trace says of each node.
std::map<NodeId, TracedNode> TracedNodes(const ClusterStatus& status);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_CLUSTER_METRICS_H_
