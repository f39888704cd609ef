// SimResultSvg: two panels, drawn by hand.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "simulator/sim_report.h"

namespace efedllm {
namespace {

constexpr double kWidth = 760;
constexpr double kLeft = 70;
constexpr double kPlotWidth = kWidth - kLeft - 20;
constexpr double kPlotHeight = 160;

// The next number of these times a power of ten.
double Round(double value) {
  if (!(value > 0)) return 1;
  const double power = std::pow(10, std::floor(std::log10(value)));
  for (const double step : {1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0}) {
    if (step * power >= value) return step * power;
  }
  return 10 * power;
}

std::string Text(double x, double y, const char* anchor, const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '<') {
      safe += "&lt;";
    } else if (c == '&') {
      safe += "&amp;";
    } else {
      safe += c;
    }
  }
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor,
                         safe);
}

// Frame, title and the vertical axis from 0 to most.
std::string Panel(double top, double most, const std::string& title) {
  std::string svg = Text(kLeft, top - 10, "start", title);
  for (int i = 0; i <= 4; ++i) {
    const double y = top + kPlotHeight * (4 - i) / 4;
    absl::StrAppendFormat(
        &svg, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", kLeft, y,
        kLeft + kPlotWidth, y);
    absl::StrAppend(&svg, Text(kLeft - 6, y + 4, "end", absl::StrFormat("%g", most * i / 4)));
  }
  return svg;
}

}  // namespace

std::string SimResultSvg(const SimSpec& spec, const SimResult& result) {
  constexpr double kFirst = 60;
  constexpr double kSecond = kFirst + kPlotHeight + 90;
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" "
      "fill=\"white\"/>\n",
      kWidth, kSecond + kPlotHeight + 50);
  absl::StrAppend(&svg, Text(kLeft, 24, "start",
                             absl::StrFormat("%s: stages: %d, chains: %d, tokens/s: %.1f",
                                             spec.model.name, result.stages.size(),
                                             result.plan.chains.size(), result.tokens_per_second)));
  double fastest = 0;
  for (const RatePoint& point : result.rates) fastest = std::max(fastest, point.tokens_per_second);
  const double most = Round(fastest);
  absl::StrAppend(&svg, Panel(kFirst, most, "generated tokens per second, over time"));
  std::string line;
  for (const RatePoint& point : result.rates) {
    const double x =
        kLeft + kPlotWidth * point.seconds / std::max(result.rates.back().seconds, 1e-9);
    absl::StrAppendFormat(&line, "%.1f,%.1f ", x,
                          kFirst + kPlotHeight * (1 - point.tokens_per_second / most));
  }
  absl::StrAppend(&svg, "<polyline fill=\"none\" stroke=\"#1f6fb4\" stroke-width=\"2\" points=\"",
                  line, "\"/>\n");
  absl::StrAppend(&svg, Text(kLeft, kFirst + kPlotHeight + 18, "start", "0 s"),
                  Text(kLeft + kPlotWidth, kFirst + kPlotHeight + 18, "end",
                       absl::StrFormat("%.1f s", result.seconds)));

  absl::StrAppend(&svg, Panel(kSecond, 100, "per cent of the time in which each stage computes"));
  const double width =
      kPlotWidth / static_cast<double>(std::max<size_t>(result.stages.size(), 1) + 1);
  double x = kLeft;
  const auto bar = [&](double busy, const char* colour) {
    absl::StrAppendFormat(
        &svg, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"/>\n",
        x + 0.1 * width, kSecond + kPlotHeight * (1 - busy), 0.8 * width, kPlotHeight * busy,
        colour);
    x += width;
  };
  for (const StageUse& stage : result.stages) {
    bar(stage.busy, stage.chain % 2 == 0 ? "#1f6fb4" : "#6baed6");
  }
  bar(result.head_busy, "#e6812f");
  absl::StrAppend(
      &svg, Text(kLeft, kSecond + kPlotHeight + 18, "start", "stages in the order of a chain"),
      Text(kLeft + kPlotWidth, kSecond + kPlotHeight + 18, "end",
           "the coordinator's head (orange)"),
      "</svg>\n");
  return svg;
}

}  // namespace efedllm
