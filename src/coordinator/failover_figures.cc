#include "coordinator/failover_figures.h"

#include <algorithm>

#include "absl/strings/string_view.h"

namespace efedllm {
namespace {

prometheus::ClientMetric Find(const std::vector<prometheus::MetricFamily>& families,
                              absl::string_view name) {
  const auto family = std::find_if(families.begin(), families.end(),
                                   [&](const auto& family) { return name == family.name; });
  if (family == families.end() || family->metric.empty()) return {};
  return family->metric.front();
}

}  // namespace

FailoverFigures FailoversIn(const std::vector<prometheus::MetricFamily>& families) {
  const auto count = [&](absl::string_view name) {
    return static_cast<uint64_t>(Find(families, name).counter.value);
  };
  FailoverFigures figures;
  figures.count = count("efedllm_failovers_total");
  const auto pauses = Find(families, "efedllm_failover_pause_seconds").histogram;
  if (pauses.sample_count > 0) {
    figures.mean_pause_seconds = pauses.sample_sum / static_cast<double>(pauses.sample_count);
  }
  figures.kept_tokens = count("efedllm_kept_tokens_total");
  figures.replayed_by_stages_tokens = count("efedllm_replayed_by_stages_tokens_total");
  figures.replayed_from_tokens = count("efedllm_replayed_from_tokens_total");
  return figures;
}

}  // namespace efedllm
