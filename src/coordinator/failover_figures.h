// What failovers cost so far, as `efedllm-ctl status` shows it, from the process's own metrics.
#ifndef EFEDLLM_COORDINATOR_FAILOVER_FIGURES_H_
#define EFEDLLM_COORDINATOR_FAILOVER_FIGURES_H_

#include <cstdint>
#include <vector>

#include "prometheus/metric_family.h"

namespace efedllm {

struct FailoverFigures {
  uint64_t count = 0;             // in which running sequences went on in another epoch
  double mean_pause_seconds = 0;  // of them; 0: none
  // Tokens of interrupted sequences: whose KV was there still, or was computed again by some nodes,
  // or by all.
  uint64_t kept_tokens = 0;
  uint64_t replayed_by_stages_tokens = 0;
  uint64_t replayed_from_tokens = 0;
};

// families: of the registry that SchedulerMetrics was made with. What is missing is 0.
FailoverFigures FailoversIn(const std::vector<prometheus::MetricFamily>& families);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_FAILOVER_FIGURES_H_
