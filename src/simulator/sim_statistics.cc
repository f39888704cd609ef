#include "simulator/sim_statistics.h"

#include <algorithm>
#include <cmath>

namespace efedllm {
namespace {

constexpr size_t kBins = 60;

template <class T>
Quantiles QuantilesOf(std::vector<T> values) {
  if (values.empty()) return {};
  const auto at = [&](double share) {
    const auto index =
        static_cast<size_t>(std::ceil(share * static_cast<double>(values.size()))) - 1;
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(index),
                     values.end());
    return static_cast<double>(values[index]);
  };
  return {at(0.5), at(0.99), at(1)};
}

std::vector<RatePoint> Bins(const std::vector<std::pair<double, uint64_t>>& timeline) {
  std::vector<RatePoint> bins;
  if (timeline.empty() || timeline.back().first <= 0) return bins;
  const double width = timeline.back().first / kBins;
  size_t next = 0;
  uint64_t before = 0;
  for (size_t bin = 1; bin <= kBins; ++bin) {
    uint64_t tokens = before;
    const double end = bin == kBins ? timeline.back().first : width * static_cast<double>(bin);
    while (next < timeline.size() && timeline[next].first <= end) tokens = timeline[next++].second;
    bins.push_back({end, static_cast<double>(tokens - before) / width});
    before = tokens;
  }
  return bins;
}

}  // namespace

void SimStatistics::SetMark(Mark& mark, double now, const ComputeServers& servers) const {
  mark.set = true;
  mark.at = now;
  mark.tokens = tokens_;
  for (size_t i = 0; i < servers.size(); ++i) mark.busy_seconds.push_back(servers.busy_seconds(i));
}

void SimStatistics::OnTokens(double now, size_t count, const ComputeServers& servers) {
  tokens_ += count;
  if (timeline_.empty() || timeline_.back().first < now) {
    timeline_.emplace_back(now, tokens_);
  } else {
    timeline_.back().second = tokens_;
  }
  if (!begin_.set && 4 * tokens_ >= output_tokens_expected) SetMark(begin_, now, servers);
  if (!end_.set && 4 * tokens_ >= 3 * output_tokens_expected) SetMark(end_, now, servers);
}

double SimStatistics::SteadyBusy(size_t server, const ComputeServers& servers) const {
  if (end_.set && end_.at > begin_.at) {
    const double busy = end_.busy_seconds[server] - begin_.busy_seconds[server];
    return std::min(busy / (end_.at - begin_.at), 1.0);
  }
  const double all = timeline_.empty() ? 0 : timeline_.back().first;
  return all > 0 ? std::min(servers.busy_seconds(server) / all, 1.0) : 0;
}

SimResult SimStatistics::Summary(const std::vector<SimRequest>& requests) const {
  SimResult result;
  std::vector<double> first_token;
  std::vector<double> stream_rate;
  double begun = INFINITY;
  for (const SimRequest& request : requests) {
    if (request.generated == 0) continue;
    ++result.requests;
    result.prompt_tokens += request.prompt_tokens;
    result.output_tokens += request.generated;
    begun = std::min(begun, request.arrived);
    first_token.push_back(request.first_token - request.arrived);
    const double took = request.last_token - request.first_token;
    if (took > 0) stream_rate.push_back((request.generated - 1) / took);
  }
  result.steps = steps;
  result.events = events;
  result.most_running = most_running;
  result.preemptions = preemptions;
  result.rows_per_step = steps > 0 ? static_cast<double>(rows) / static_cast<double>(steps) : 0;
  if (timeline_.empty()) return result;
  result.seconds = timeline_.back().first - begun;
  const auto tokens = static_cast<double>(tokens_);
  result.overall_tokens_per_second = result.seconds > 0 ? tokens / result.seconds : 0;
  result.tokens_per_second =
      end_.set && end_.at > begin_.at
          ? static_cast<double>(end_.tokens - begin_.tokens) / (end_.at - begin_.at)
          : result.overall_tokens_per_second;
  result.stream_tokens_per_second = QuantilesOf(stream_rate).median;
  result.first_token_seconds = QuantilesOf(first_token);
  result.inter_token_seconds = QuantilesOf(gaps);
  result.rates = Bins(timeline_);
  return result;
}

}  // namespace efedllm
