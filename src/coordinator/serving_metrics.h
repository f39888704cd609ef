// What Prometheus sees of the serving side.
#ifndef EFEDLLM_COORDINATOR_SERVING_METRICS_H_
#define EFEDLLM_COORDINATOR_SERVING_METRICS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace efedllm {

// Written by the scheduler's thread; thread-safe like all of Prometheus' types.
struct SchedulerMetrics {
  explicit SchedulerMetrics(prometheus::Registry& registry);

  prometheus::Counter& prompt_tokens;
  prometheus::Counter& generated_tokens;
  prometheus::Counter& steps;
  prometheus::Counter& replays;
  prometheus::Counter& failovers;
  prometheus::Histogram& failover_seconds;
  // Tokens of interrupted sequences, by where their KV comes from.
  prometheus::Counter& kept_tokens;
  prometheus::Counter& replayed_by_stages;
  prometheus::Counter& replayed_from_tokens;
  prometheus::Gauge& queued;
  prometheus::Gauge& running;
  prometheus::Counter& prefix_cache_tokens;
  prometheus::Counter& preemptions;
  prometheus::Gauge& kv_held;
  prometheus::Gauge& kv_cached;
  prometheus::Gauge& kv_total;
  prometheus::Gauge& steps_in_flight;
  prometheus::Histogram& step_seconds;
  prometheus::Histogram& step_rows;
  prometheus::Histogram& head_seconds;
  prometheus::Histogram& first_token_seconds;
  prometheus::Histogram& inter_token_seconds;
};

// Events per second over the last ten seconds. One caller at a time.
class RateMeter {
 public:
  void Add(absl::Time now, uint64_t events);
  double PerSecond(absl::Time now) const;

 private:
  static constexpr int64_t kSeconds = 10;
  struct Bucket {
    int64_t second = -1;
    uint64_t events = 0;
  };
  std::array<Bucket, kSeconds + 1> buckets_;  // the last one is still filling
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_SERVING_METRICS_H_
