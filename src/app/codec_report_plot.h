// Plots as SVG: panels in rows, with lines, points and rules.
#ifndef EFEDLLM_APP_CODEC_REPORT_PLOT_H_
#define EFEDLLM_APP_CODEC_REPORT_PLOT_H_

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace efedllm {

struct PlotSeries {
  enum class Mark { kNone, kDot, kDiamond };

  std::string label;  // in the legend; the same label, the same colour
  std::string colour;
  std::vector<std::pair<double, double>> points;
  bool line = true;
  bool dashed = false;
  Mark mark = Mark::kDot;
  std::vector<std::string> names;  // beside the points; may be empty
};

// A dashed line across a panel.
struct PlotRule {
  double y = 0;
  std::string label;
};

// Points that an axis can't show (not finite, not above 0 on a logarithmic one, out of its range)
// are left out.
struct PlotPanel {
  std::string title, x_label, y_label;
  bool x_log = false, y_log = false;
  std::optional<double> x_least, x_most, y_least, y_most;  // default: what the points take
  std::vector<PlotSeries> series;
  std::vector<PlotRule> rules;
};

// One legend for all panels. A panel without points says so.
std::string PlotSvg(absl::string_view title, const std::vector<PlotPanel>& panels, size_t columns);

// For text in SVG and HTML.
std::string EscapeXml(absl::string_view text);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CODEC_REPORT_PLOT_H_
