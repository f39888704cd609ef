#include "app/codec_report_plot.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace efedllm {
namespace {

constexpr double kPanelWidth = 340, kPanelHeight = 240;
constexpr double kLeft = 70, kTop = 34, kRight = 26, kBottom = 52;  // around a panel
constexpr double kHead = 40, kLegend = 34, kLegendLine = 18;
constexpr double kLegendFont = 6.6;  // width of a letter

constexpr double CellWidth() { return kLeft + kPanelWidth + kRight; }
constexpr double CellHeight() { return kTop + kPanelHeight + kBottom; }

std::string Text(double x, double y, absl::string_view anchor, absl::string_view text,
                 absl::string_view more = "") {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", x, y,
                         std::string(anchor), std::string(more), EscapeXml(text));
}

std::string Line(double x1, double y1, double x2, double y2, absl::string_view style) {
  return absl::StrFormat("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2,
                         y2, std::string(style));
}

// "0.01", but "1e-4".
std::string TickLabel(double tick) {
  if (tick == 0 || std::abs(tick) >= 1e-3) return absl::StrFormat("%g", tick);
  const int exponent = static_cast<int>(std::floor(std::log10(std::abs(tick)) + 1e-9));
  return absl::StrFormat("%ge%d", tick / std::pow(10, exponent), exponent);
}

// Maps values to [0, 1].
class Axis {
 public:
  Axis(bool log, double least, double most) : log_(log), low_(To(least)), high_(To(most)) {
    if (!(high_ > low_)) high_ = low_ + 1;
  }

  double At(double value) const { return (To(value) - low_) / (high_ - low_); }
  bool Shows(double value) const {
    if (!std::isfinite(value) || (log_ && !(value > 0))) return false;
    const double at = At(value);
    return at > -1e-6 && at < 1 + 1e-6;
  }
  std::vector<double> Ticks() const { return log_ ? LogTicks() : LinearTicks(); }

 private:
  double To(double value) const { return log_ ? std::log10(value) : value; }

  std::vector<double> LogTicks() const {
    std::vector<double> ticks;
    const double decades = high_ - low_;
    for (double exponent = std::floor(low_); exponent <= high_; ++exponent) {
      for (const double step : {1.0, 2.0, 5.0}) {
        if (step != 1 && decades > 2.2) continue;
        const double tick = step * std::pow(10, exponent);
        if (Shows(tick)) ticks.push_back(tick);
      }
    }
    return ticks;
  }

  std::vector<double> LinearTicks() const {
    double step = std::pow(10, std::floor(std::log10((high_ - low_) / 2)));
    for (const double factor : {2.0, 2.5, 2.0}) {
      if ((high_ - low_) / step > 6.5) step *= factor;
    }
    std::vector<double> ticks;
    for (double i = std::ceil(low_ / step - 1e-6); i * step <= high_ + 1e-9; ++i) {
      ticks.push_back(i * step == 0 ? 0 : i * step);
    }
    return ticks;
  }

  const bool log_;
  double low_, high_;
};

Axis AxisOf(const PlotPanel& panel, bool x) {
  const bool log = x ? panel.x_log : panel.y_log;
  double least = INFINITY, most = -INFINITY;
  const auto widen = [&](double value) {
    if (!std::isfinite(value) || (log && !(value > 0))) return;
    least = std::min(least, value);
    most = std::max(most, value);
  };
  for (const PlotSeries& series : panel.series) {
    for (const auto& [at_x, at_y] : series.points) widen(x ? at_x : at_y);
  }
  for (const PlotRule& rule : panel.rules) {
    if (!x) widen(rule.y);
  }
  if (!(most >= least)) return Axis(log, 1, 10);
  const double margin = log ? 0 : 0.05 * (most - least);
  least = log ? least / 1.15 : least - margin;
  most = log ? most * 1.15 : most + margin;
  const std::optional<double>& least_wanted = x ? panel.x_least : panel.y_least;
  const std::optional<double>& most_wanted = x ? panel.x_most : panel.y_most;
  return Axis(log, least_wanted.value_or(least), most_wanted.value_or(most));
}

std::string Marker(PlotSeries::Mark mark, double x, double y, const std::string& colour) {
  switch (mark) {
    case PlotSeries::Mark::kDot:
      return absl::StrFormat("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x, y,
                             colour);
    case PlotSeries::Mark::kDiamond:
      return absl::StrFormat(
          "<path d=\"M%.1f %.1fl6 6l-6 6l-6 -6z\" fill=\"%s\" stroke=\"white\"/>\n", x, y - 6,
          colour);
    case PlotSeries::Mark::kNone:
      break;
  }
  return "";
}

// One panel whose drawing area has its corner at (left, top).
class Drawing {
 public:
  Drawing(const PlotPanel& panel, double left, double top)
      : panel_(panel), left_(left), top_(top), x_(AxisOf(panel, true)), y_(AxisOf(panel, false)) {}

  std::string Svg() {
    svg_ = Text(left_, top_ - 10, "start", panel_.title, " font-weight=\"600\"");
    Grid();
    Rules();
    bool empty = true;
    for (const PlotSeries& series : panel_.series) empty = Series(series) && empty;
    if (empty) {
      svg_ += Text(left_ + kPanelWidth / 2, top_ + kPanelHeight / 2, "middle", "nothing measured",
                   " fill=\"#888\"");
    }
    return std::move(svg_);
  }

 private:
  double X(double value) const { return left_ + kPanelWidth * x_.At(value); }
  double Y(double value) const { return top_ + kPanelHeight * (1 - y_.At(value)); }

  void Grid() {
    const double bottom = top_ + kPanelHeight;
    for (const double tick : y_.Ticks()) {
      svg_ += Line(left_, Y(tick), left_ + kPanelWidth, Y(tick), "stroke=\"#e6e8eb\"");
      svg_ += Text(left_ - 7, Y(tick) + 4, "end", TickLabel(tick), " fill=\"#555\"");
    }
    for (const double tick : x_.Ticks()) {
      svg_ += Line(X(tick), top_, X(tick), bottom, "stroke=\"#f1f2f4\"");
      svg_ += Text(X(tick), bottom + 16, "middle", TickLabel(tick), " fill=\"#555\"");
    }
    absl::StrAppendFormat(&svg_,
                          "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                          "fill=\"none\" stroke=\"#b8bcc2\"/>\n",
                          left_, top_, kPanelWidth, kPanelHeight);
    svg_ += Text(left_ + kPanelWidth / 2, bottom + 36, "middle", panel_.x_label);
    const double middle = top_ + kPanelHeight / 2;
    svg_ += Text(left_ - 54, middle, "middle", panel_.y_label,
                 absl::StrFormat(" transform=\"rotate(-90 %.1f %.1f)\"", left_ - 54, middle));
  }

  void Rules() {
    for (const PlotRule& rule : panel_.rules) {
      if (!y_.Shows(rule.y)) continue;
      svg_ += Line(left_, Y(rule.y), left_ + kPanelWidth, Y(rule.y),
                   "stroke=\"#9aa0a8\" stroke-dasharray=\"5 4\"");
      svg_ += Text(left_ + kPanelWidth - 5, Y(rule.y) - 4, "end", rule.label,
                   " fill=\"#777\" font-size=\"10\"");
    }
  }

  // Is there nothing to see of it?
  bool Series(const PlotSeries& series) {
    std::string path, marks;
    for (size_t i = 0; i < series.points.size(); ++i) {
      const auto& [x, y] = series.points[i];
      if (!x_.Shows(x) || !y_.Shows(y)) continue;
      absl::StrAppendFormat(&path, "%.1f,%.1f ", X(x), Y(y));
      marks += Marker(series.mark, X(x), Y(y), series.colour);
      if (i < series.names.size()) {
        marks += Text(X(x) + 9, Y(y) - 5, "start", series.names[i],
                      absl::StrFormat(" font-size=\"11\" fill=\"%s\"", series.colour));
      }
    }
    if (path.empty()) return true;
    if (series.line) {
      absl::StrAppendFormat(
          &svg_, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s/>\n",
          path, series.colour, series.dashed ? " stroke-dasharray=\"6 4\"" : "");
    }
    svg_ += marks;
    return false;
  }

  const PlotPanel& panel_;
  const double left_, top_;
  const Axis x_, y_;
  std::string svg_;
};

struct PlotLegend {
  std::string svg;
  double height = 0;
};

// In as many lines as it takes. y: of the first.
PlotLegend Legend(const std::vector<PlotPanel>& panels, double y, double width) {
  PlotLegend legend{"", kLegend};
  std::vector<std::string> seen;
  double x = kLeft;
  for (const PlotPanel& panel : panels) {
    for (const PlotSeries& series : panel.series) {
      if (std::find(seen.begin(), seen.end(), series.label) != seen.end()) continue;
      seen.push_back(series.label);
      const double wide = 29 + kLegendFont * static_cast<double>(series.label.size()) + 22;
      if (x > kLeft && x + wide > width) {
        x = kLeft;
        y += kLegendLine;
        legend.height += kLegendLine;
      }
      if (series.line) {
        legend.svg += Line(x, y, x + 22, y,
                           absl::StrFormat("stroke=\"%s\" stroke-width=\"3\"%s", series.colour,
                                           series.dashed ? " stroke-dasharray=\"6 4\"" : ""));
      }
      legend.svg += Marker(series.mark, x + 11, y, series.colour);
      legend.svg += Text(x + 29, y + 4, "start", series.label);
      x += wide;
    }
  }
  return legend;
}

}  // namespace

std::string EscapeXml(absl::string_view text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string PlotSvg(absl::string_view title, const std::vector<PlotPanel>& panels, size_t columns) {
  const size_t across = std::max<size_t>(1, std::min(columns, panels.size()));
  const size_t down = (panels.size() + across - 1) / across;
  const double width = CellWidth() * static_cast<double>(across);
  const double plots = kHead + CellHeight() * static_cast<double>(down);
  const PlotLegend legend = Legend(panels, plots + kLegend - 18, width);
  const double height = plots + legend.height;
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
      "height=\"%.0f\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      width, height, width, height);
  svg += Text(kLeft, 26, "start", title, " font-size=\"15\" font-weight=\"600\"");
  for (size_t i = 0; i < panels.size(); ++i) {
    const double left = CellWidth() * static_cast<double>(i % across) + kLeft;
    const size_t row = i / across;
    const double top = kHead + CellHeight() * static_cast<double>(row) + kTop;
    svg += Drawing(panels[i], left, top).Svg();
  }
  return absl::StrCat(svg, legend.svg, "</svg>\n");
}

}  // namespace efedllm
