#include "coordinator/serving_metrics.h"

#include <string>

#include "prometheus/family.h"

namespace efedllm {
namespace {

prometheus::Counter& Counter(prometheus::Registry& registry, const std::string& name,
                             const std::string& help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Gauge& Gauge(prometheus::Registry& registry, const std::string& name,
                         const std::string& help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Histogram& Histogram(prometheus::Registry& registry, const std::string& name,
                                 const std::string& help,
                                 const prometheus::Histogram::BucketBoundaries& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

prometheus::Histogram::BucketBoundaries LatencyBuckets() {
  return {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};
}

prometheus::Histogram::BucketBoundaries RowBuckets() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
}

}  // namespace

SchedulerMetrics::SchedulerMetrics(prometheus::Registry& registry)
    : prompt_tokens(Counter(registry, "efedllm_prompt_tokens_total",
                            "Prompt tokens of the requests that were admitted")),
      generated_tokens(Counter(registry, "efedllm_generated_tokens_total", "Tokens sampled")),
      steps(Counter(registry, "efedllm_steps_total", "Steps that came back from the last stage")),
      replays(Counter(registry, "efedllm_sequence_replays_total",
                      "Sequences interrupted because an epoch ended or a step failed")),
      failovers(Counter(registry, "efedllm_failovers_total",
                        "Times that running sequences had to go on in another epoch")),
      failover_seconds(Histogram(registry, "efedllm_failover_pause_seconds",
                                 "From the end of an epoch with running sequences to the first "
                                 "tokens of the next",
                                 LatencyBuckets())),
      kept_tokens(Counter(registry, "efedllm_kept_tokens_total",
                          "Tokens of interrupted sequences whose KV every node still had")),
      replayed_by_stages(Counter(registry, "efedllm_replayed_by_stages_tokens_total",
                                 "Tokens of interrupted sequences that only the stages that had "
                                 "lost their KV computed again")),
      replayed_from_tokens(Counter(registry, "efedllm_replayed_from_tokens_total",
                                   "Tokens of interrupted sequences that all stages computed "
                                   "again")),
      queued(Gauge(registry, "efedllm_queued_sequences", "Sequences that wait for admission")),
      running(Gauge(registry, "efedllm_running_sequences", "Sequences that run")),
      prefix_cache_tokens(Counter(registry, "efedllm_prefix_cache_tokens_total",
                                  "Tokens whose KV was taken over instead of computed")),
      preemptions(Counter(registry, "efedllm_preemptions_total",
                          "Sequences that made room for others, and came back")),
      kv_held(Gauge(registry, "efedllm_kv_held_tokens",
                    "Token positions in the KV memory of every stage that running sequences hold")),
      kv_cached(Gauge(registry, "efedllm_kv_cached_tokens",
                      "Token positions in the KV memory of every stage that only the prefix cache "
                      "holds")),
      kv_total(Gauge(registry, "efedllm_kv_total_tokens",
                     "Token positions that fit into the KV memory; 0 while no epoch serves")),
      steps_in_flight(Gauge(registry, "efedllm_steps_in_flight", "Steps between the stages")),
      step_seconds(Histogram(registry, "efedllm_step_seconds",
                             "From a step's submission until its result is back",
                             LatencyBuckets())),
      step_rows(Histogram(registry, "efedllm_step_rows", "Tokens in a step", RowBuckets())),
      head_seconds(Histogram(registry, "efedllm_head_seconds",
                             "Output head and sampling of one step", LatencyBuckets())),
      first_token_seconds(Histogram(registry, "efedllm_time_to_first_token_seconds",
                                    "From a request's arrival to its first token",
                                    LatencyBuckets())),
      inter_token_seconds(Histogram(registry, "efedllm_inter_token_seconds",
                                    "Between two tokens of a sequence", LatencyBuckets())) {}

void RateMeter::Add(absl::Time now, uint64_t events) {
  const int64_t second = absl::ToUnixSeconds(now);
  Bucket& bucket = buckets_[static_cast<size_t>(second) % buckets_.size()];
  if (bucket.second != second) bucket = {second, 0};
  bucket.events += events;
}

double RateMeter::PerSecond(absl::Time now) const {
  const int64_t second = absl::ToUnixSeconds(now);
  uint64_t events = 0;
  for (const Bucket& bucket : buckets_) {
    if (bucket.second >= second - kSeconds && bucket.second < second) events += bucket.events;
  }
  return static_cast<double>(events) / kSeconds;
}

}  // namespace efedllm
