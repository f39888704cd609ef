// The plots of codec_report_pages.h.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "app/codec_report_pages.h"
#include "app/codec_report_plot.h"
#include "svd/codec_policy.h"

namespace efedllm {
namespace {

constexpr double kWorstShownKl = 0.15;

std::string ColourOf(absl::string_view curve) {
  if (curve == "KLT") return "#1f6fb4";
  if (curve == "scalar") return "#3a9b46";
  if (curve == "int blocks") return "#e6812f";
  return "#6b7280";
}

double Percent(const CodecReport& report, double bytes) {
  return 100 * bytes / static_cast<double>(report.f16_bytes());
}

PlotSeries SeriesOf(const CodecReport& report, const CodecCurve& curve,
                    const std::function<double(const CodecPoint&)>& value) {
  PlotSeries series;
  series.label =
      curve.name == "KLT" ? "KLT + rANS" : (curve.name == "scalar" ? "scalar + rANS" : curve.name);
  series.colour = ColourOf(curve.name);
  series.line = curve.points.size() > 1;
  for (const CodecPoint& point : curve.points) {
    if (point.mean_kl > kWorstShownKl) continue;
    series.points.emplace_back(Percent(report, point.bytes), value(point));
  }
  return series;
}

PlotPanel TogetherPanel(const CodecReport& report, const std::string& title,
                        const std::string& y_label,
                        const std::function<double(const CodecPoint&)>& value) {
  PlotPanel panel;
  panel.title = title;
  panel.x_label = "bytes a token and hop, % of f16";
  panel.y_label = y_label;
  panel.x_least = 0;
  panel.x_most = 60;
  for (const CodecCurve& curve : report.together) {
    if (curve.name != "f16") panel.series.push_back(SeriesOf(report, curve, value));
  }
  PlotSeries bound;
  bound.label = "Gaussian bound";
  bound.colour = "#8ab4dc";
  bound.dashed = true;
  bound.mark = PlotSeries::Mark::kNone;
  for (const CodecPoint& point : FindCurve(report.together, "KLT")->points) {
    if (!point.bound_bytes || point.mean_kl > kWorstShownKl) continue;
    bound.points.emplace_back(Percent(report, *point.bound_bytes), value(point));
  }
  panel.series.push_back(std::move(bound));
  PlotSeries levels = SeriesOf(report, {"levels", report.levels}, value);
  levels.colour = "#b4231f";
  levels.line = false;
  levels.mark = PlotSeries::Mark::kDiamond;
  for (const CodecPoint& point : report.levels) levels.names.push_back(point.name);
  panel.series.push_back(std::move(levels));
  return panel;
}

// Of what is coded, all; what is as good as nothing is left out.
double LeastShown(const BoundaryFindings& boundary) {
  double least = 1;
  for (const double share : boundary.coded_spectrum) {
    if (share > 0) least = std::min(least, 50 * share);
  }
  return std::max(least, 1e-4);
}

std::vector<std::pair<double, double>> SpectrumPoints(const std::vector<double>& spectrum) {
  std::vector<std::pair<double, double>> points;
  for (size_t i = 0; i < spectrum.size(); ++i) {
    points.emplace_back(static_cast<double>(i + 1), 100 * spectrum[i]);
  }
  return points;
}

}  // namespace

std::string TogetherSvg(const CodecReport& report) {
  std::vector<PlotPanel> panels;
  panels.push_back(TogetherPanel(report, "Divergence from the uncoded model",
                                 "mean KL, nats a token",
                                 [](const CodecPoint& point) { return point.mean_kl; }));
  panels[0].y_log = true;
  panels[0].y_least = 1e-5;
  panels[0].y_most = kWorstShownKl;
  panels[0].rules = {{KlBudget(CodecLevel::kTransparent), "transparent"},
                     {KlBudget(CodecLevel::kBalanced), "balanced"},
                     {KlBudget(CodecLevel::kSmall), "small"}};
  panels.push_back(TogetherPanel(
      report, "Perplexity", "over the uncoded model's, %",
      [&](const CodecPoint& point) { return 100 * (point.perplexity / report.perplexity - 1); }));
  panels[1].rules = {{0, "uncoded"}};
  if (report.accuracy) {
    panels.push_back(
        TogetherPanel(report, absl::StrFormat("%d tasks", report.questions), "right, %",
                      [](const CodecPoint& point) { return 100 * point.accuracy.value_or(NAN); }));
    panels[2].rules = {{100 * *report.accuracy, "uncoded"}};
  }
  return PlotSvg(absl::StrCat(report.model, ", all boundaries coded"), panels, 3);
}

std::string BoundariesSvg(const CodecReport& report) {
  std::vector<PlotPanel> panels;
  for (const BoundaryFindings& boundary : report.boundaries) {
    PlotPanel panel;
    panel.title = absl::StrCat("After layer ", boundary.after_layers, " alone");
    panel.x_label = "bytes a token, % of f16";
    panel.y_label = "mean KL, nats a token";
    panel.y_log = true;
    panel.x_least = 0;
    panel.x_most = 60;
    for (const CodecCurve& curve : boundary.curves) {
      panel.series.push_back(
          SeriesOf(report, curve, [](const CodecPoint& point) { return point.mean_kl; }));
    }
    panels.push_back(std::move(panel));
  }
  return PlotSvg(absl::StrCat(report.model, ", each boundary alone"), panels, 3);
}

std::string SpectraSvg(const CodecReport& report) {
  std::vector<PlotPanel> panels;
  for (const BoundaryFindings& boundary : report.boundaries) {
    PlotPanel panel;
    panel.title = absl::StrFormat("After layer %d: %d massive dimensions", boundary.after_layers,
                                  boundary.massive.size());
    panel.x_label = "direction, by falling energy";
    panel.y_label = "% of the energy";
    panel.x_log = panel.y_log = true;
    panel.y_least = LeastShown(boundary);
    panel.y_most = 110;
    const auto add = [&](const char* label, const char* colour, const std::vector<double>& shares) {
      PlotSeries series;
      series.label = label;
      series.colour = colour;
      series.mark = PlotSeries::Mark::kNone;
      series.points = SpectrumPoints(shares);
      panel.series.push_back(std::move(series));
    };
    add("as computed", "#c0392b", boundary.raw_spectrum);
    add("without mean, rows of RMS 1", "#e6812f", boundary.centred_spectrum);
    add("without massive dimensions too: what is coded", "#1f6fb4", boundary.coded_spectrum);
    panels.push_back(std::move(panel));
  }
  return PlotSvg(absl::StrCat(report.model, ", spectra of the boundaries"), panels, 3);
}

}  // namespace efedllm
