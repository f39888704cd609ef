#include "app/population_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "app/codec_report_plot.h"

namespace efedllm {
namespace {

constexpr size_t kMostPoints = 200;  // of a line, about
constexpr std::array<const char*, 12> kColours = {"#1f6fb4", "#b4231f", "#e6812f", "#8a4fb0",
                                                  "#c2a100", "#0f8f8f", "#d1457b", "#6b7280",
                                                  "#7a4a1e", "#3a9b46", "#5b6ee1", "#111111"};

const PopulationKindInfo& InfoOf(const PopulationGroupResult& group) {
  return PopulationKinds()[static_cast<size_t>(group.group.kind)];
}

PlotSeries SeriesOf(const PopulationResult& result, size_t index) {
  PlotSeries series;
  series.label = result.groups[index].group.name;
  series.colour = kColours[index % kColours.size()];
  series.dashed = !InfoOf(result.groups[index]).cheats;
  series.mark = PlotSeries::Mark::kNone;
  return series;
}

double Hours(const PopulationResult& result, size_t rounds) {
  return static_cast<double>(rounds) * result.scenario.seconds_per_round / 3600;
}

// Dense where time is short: for logarithmic axes, too.
void AddPoints(const PopulationResult& result, const std::vector<double>& values, double scale,
               PlotSeries& series) {
  const double step = std::pow(static_cast<double>(values.size()), 1.0 / kMostPoints);
  double next = 1;
  for (size_t i = 1; i <= values.size(); ++i) {
    const bool last = i == values.size();
    if (static_cast<double>(i) < next && i % (1 + values.size() / kMostPoints) != 0 && !last) {
      continue;
    }
    next = static_cast<double>(i) * step;
    series.points.emplace_back(Hours(result, i), scale * values[i - 1]);
  }
}

PlotPanel OverTime(const PopulationResult& result, const std::string& title,
                   const std::string& y_label, double scale,
                   std::vector<double> PopulationGroupResult::*values) {
  PlotPanel panel;
  panel.title = title;
  panel.x_label = "hours";
  panel.y_label = y_label;
  for (size_t i = 0; i < result.groups.size(); ++i) {
    PlotSeries series = SeriesOf(result, i);
    AddPoints(result, result.groups[i].*values, scale, series);
    panel.series.push_back(std::move(series));
  }
  return panel;
}

std::vector<PlotPanel> RewardPanels(const PopulationResult& result) {
  const std::string label = "posted less penalties, credits a machine";
  std::vector<PlotPanel> panels(
      2, OverTime(result, "Rewards", label, 1, &PopulationGroupResult::earned));
  panels[0].y_least = 0;
  panels[1].title = "The same, both axes logarithmic";
  panels[1].x_log = panels[1].y_log = true;
  return panels;
}

PlotPanel EvictionPanel(const PopulationResult& result) {
  PlotPanel panel = OverTime(result, "Keys that were evicted, of those so far", "%", 100,
                             &PopulationGroupResult::evicted);
  panel.x_log = true;
  panel.y_least = 0;
  panel.y_most = 102;
  return panel;
}

std::string Subtitle(const PopulationResult& result) {
  return absl::StrFormat("rules of version %d, seed %d", result.rules.version,
                         result.scenario.seed);
}

// Keys that were found with at most x of what is counted, %.
PlotSeries FoundBy(const PopulationResult& result, size_t index,
                   uint64_t PopulationDetection::*count, double scale) {
  PlotSeries series = SeriesOf(result, index);
  std::vector<double> found;
  for (const PopulationDetection& detection : result.groups[index].detections) {
    if (detection.proven) found.push_back(scale * static_cast<double>(detection.*count));
  }
  std::sort(found.begin(), found.end());
  const auto keys = static_cast<double>(result.groups[index].detections.size());
  double share = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    // Steps: the corners alone.
    if (i + 1 < found.size() && found[i + 1] == found[i]) continue;
    series.points.emplace_back(found[i], share);
    share = 100 * static_cast<double>(i + 1) / keys;
    series.points.emplace_back(found[i], share);
  }
  return series;
}

PlotPanel DetectionPanel(const PopulationResult& result, const std::string& title,
                         const std::string& x_label, uint64_t PopulationDetection::*count,
                         double scale) {
  PlotPanel panel;
  panel.title = title;
  panel.x_label = x_label;
  panel.y_label = "% of keys";
  panel.x_log = true;
  panel.y_least = 0;
  panel.y_most = 102;
  for (size_t i = 0; i < result.groups.size(); ++i) {
    if (result.groups[i].detections.empty()) continue;
    panel.series.push_back(FoundBy(result, i, count, scale));
  }
  return panel;
}

// With the least share that the lowest rate of audits promises.
std::vector<PlotPanel> DetectionPanels(const PopulationResult& result) {
  PlotPanel bad = DetectionPanel(result, "Found, by bad chunks", "bad chunks delivered until then",
                                 &PopulationDetection::bad_chunks, 1);
  double most = 2;
  for (const PlotSeries& series : bad.series) {
    for (const auto& [x, y] : series.points) most = std::max(most, x);
  }
  PlotSeries promise;
  promise.label = "expected at the floor";
  promise.colour = "#111111";
  promise.dashed = true;
  promise.mark = PlotSeries::Mark::kNone;
  const double floor = static_cast<double>(result.rules.audit_floor_ppm) * 1e-6;
  for (double n = 1; n <= 1.3 * most; n *= 1.05) {
    promise.points.emplace_back(n, 100 * (1 - std::pow(1 - floor, n)));
  }
  bad.series.push_back(std::move(promise));
  bad.x_least = 0.9;
  bad.x_most = 1.3 * most;
  return {std::move(bad),
          DetectionPanel(result, "Found, by tokens", "tokens computed from the first bad chunk on",
                         &PopulationDetection::chunks, result.scenario.tokens_per_chunk)};
}

}  // namespace

std::vector<PopulationPlot> PopulationPlots(const PopulationResult& result) {
  const std::string subtitle = Subtitle(result);
  return {
      {"rewards.svg", PlotSvg(absl::StrCat("Rewards, ", subtitle), RewardPanels(result), 2)},
      {"detection.svg", PlotSvg(absl::StrCat("Detection, ", subtitle), DetectionPanels(result), 2)},
      {"eviction.svg", PlotSvg(absl::StrCat("Eviction, ", subtitle), {EvictionPanel(result)}, 1)}};
}

}  // namespace efedllm
