#include "app/codec_report_pages.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
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

nlohmann::json PointJson(const CodecReport& report, const CodecPoint& point) {
  nlohmann::json json = {{"codec", point.name},
                         {"codings", point.codings},
                         {"bytes_per_token_hop", point.bytes},
                         {"payload_bytes_per_token_hop", point.payload_bytes},
                         {"share_of_f16", point.bytes / static_cast<double>(report.f16_bytes())},
                         {"mean_kl", point.mean_kl},
                         {"max_kl", point.max_kl},
                         {"top1_agreement", point.top1_agreement},
                         {"perplexity", point.perplexity},
                         {"plain_row_share", point.plain_share}};
  if (point.accuracy) json["accuracy"] = *point.accuracy;
  return json;
}

nlohmann::json PointsJson(const CodecReport& report, const std::vector<CodecPoint>& points) {
  nlohmann::json json = nlohmann::json::array();
  for (const CodecPoint& point : points) json.push_back(PointJson(report, point));
  return json;
}

nlohmann::json CurvesJson(const CodecReport& report, const std::vector<CodecCurve>& curves) {
  nlohmann::json json = nlohmann::json::object();
  for (const CodecCurve& curve : curves) json[curve.name] = PointsJson(report, curve.points);
  return json;
}

using Row = std::vector<std::string>;
using Table = std::vector<Row>;  // the first: its head

Row PointRow(const CodecReport& report, const CodecPoint& point) {
  Row row = {point.name,
             absl::StrFormat("%.1f", point.bytes),
             absl::StrFormat("%.1f", Percent(report, point.bytes)),
             absl::StrFormat("%.2e", point.mean_kl),
             absl::StrFormat("%.2e", point.max_kl),
             absl::StrFormat("%.2f", 100 * point.top1_agreement),
             absl::StrFormat("%.4f", point.perplexity)};
  if (report.accuracy) {
    row.push_back(point.accuracy ? absl::StrFormat("%.1f", 100 * *point.accuracy) : "");
  }
  row.push_back(absl::StrFormat("%.2f", 100 * point.plain_share));
  return row;
}

Row PointHead(const CodecReport& report) {
  Row head = {"codec",  "bytes a token", "% of f16",  "mean KL",
              "max KL", "same top, %",   "perplexity"};
  if (report.accuracy) head.emplace_back("tasks, %");
  head.emplace_back("finer rows, %");
  return head;
}

Table PointsTable(const CodecReport& report, const std::vector<CodecPoint>& points) {
  Table table = {PointHead(report)};
  for (const CodecPoint& point : points) table.push_back(PointRow(report, point));
  return table;
}

Table TogetherTable(const CodecReport& report) {
  Table table = {PointHead(report)};
  for (const CodecCurve& curve : report.together) {
    for (const CodecPoint& point : curve.points) table.push_back(PointRow(report, point));
  }
  return table;
}

// What integer blocks would be at a level's bytes, and what they need for its KL.
Table LevelsTable(const CodecReport& report) {
  Table table = {{"level", "boundaries coded as", "bytes a token", "% of f16", "mean KL", "budget",
                  "int blocks: KL at these bytes", "int blocks: % of f16 at this KL"}};
  const CodecCurve* blocks = FindCurve(report.together, "int blocks");
  for (const CodecPoint& point : report.levels) {
    const double budget = KlBudget(*CodecLevelFromName(point.name));
    const std::optional<double> kl = KlAtBytes(*blocks, point.bytes);
    const std::optional<double> bytes = BytesAtKl(*blocks, point.mean_kl);
    table.push_back({point.name, absl::StrJoin(point.codings, ", "),
                     absl::StrFormat("%.1f", point.bytes),
                     absl::StrFormat("%.1f", Percent(report, point.bytes)),
                     absl::StrFormat("%.2e", point.mean_kl), absl::StrFormat("%g", budget),
                     kl ? absl::StrFormat("%.2e", *kl)
                        : (point.bytes < blocks->points.back().bytes ? "none is so small" : ""),
                     bytes ? absl::StrFormat("%.1f", Percent(report, *bytes)) : ""});
  }
  return table;
}

std::string Markdown(const Table& table) {
  std::string text;
  for (size_t r = 0; r < table.size(); ++r) {
    absl::StrAppend(&text, "| ", absl::StrJoin(table[r], " | "), " |\n");
    if (r > 0) continue;
    std::string rule = "| --- |";
    for (size_t c = 1; c < table[r].size(); ++c) rule += " ---: |";
    absl::StrAppend(&text, rule, "\n");
  }
  return text;
}

std::string Html(const Table& table) {
  std::string html = "<table>\n";
  for (size_t r = 0; r < table.size(); ++r) {
    html += "<tr>";
    for (const std::string& cell : table[r]) {
      const char* tag = r == 0 ? "th" : "td";
      absl::StrAppend(&html, "<", tag, ">", EscapeXml(cell), "</", tag, ">");
    }
    html += "</tr>\n";
  }
  return html + "</table>\n";
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
  PlotSeries levels = SeriesOf(report, {"levels", report.levels}, value);
  levels.colour = "#b4231f";
  levels.line = false;
  levels.mark = PlotSeries::Mark::kDiamond;
  for (const CodecPoint& point : report.levels) levels.names.push_back(point.name);
  panel.series.push_back(std::move(levels));
  return panel;
}

std::string Head(const CodecReport& report) {
  std::string boundaries = absl::StrJoin(report.boundaries, ", ",
                                         [](std::string* out, const BoundaryFindings& boundary) {
                                           absl::StrAppend(out, boundary.after_layers);
                                         });
  std::string text = absl::StrFormat(
      "%s: width %d, %d layers; boundaries after layers %s; %d held-out tokens%s; uncoded "
      "perplexity %.4f",
      report.model, report.d_model, report.layers, boundaries, report.tokens,
      report.tokens < report.all_tokens
          ? absl::StrFormat(" (of %d, for there was no more time)", report.all_tokens)
          : "",
      report.perplexity);
  if (report.accuracy) {
    absl::StrAppendFormat(&text, ", %.1f %% of %d tasks right", 100 * *report.accuracy,
                          report.questions);
  }
  return text + ".";
}

constexpr const char* kStyle = R"(<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2128; background: #f5f6f8; margin: 0; }
main { max-width: 1320px; margin: 0 auto; padding: 24px; }
h1 { font-size: 24px; margin: 8px 0 4px; } h2 { font-size: 18px; margin: 0 0 8px; }
section { background: white; border: 1px solid #e1e4e8; border-radius: 8px; padding: 18px 22px;
          margin: 18px 0; overflow-x: auto; }
svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 12px; border-bottom: 1px solid #eceef1; }
th:first-child, td:first-child { text-align: left; } th { color: #57606a; font-weight: 600; }
tr:hover td { background: #f7f9fc; } p { margin: 4px 0 12px; max-width: 100ch; }
</style>
)";

std::string Section(absl::string_view title, absl::string_view text, absl::string_view body) {
  return absl::StrCat("<section>\n<h2>", title, "</h2>\n<p>", text, "</p>\n", body, "</section>\n");
}

std::vector<std::pair<double, double>> SpectrumPoints(const std::vector<double>& spectrum) {
  std::vector<std::pair<double, double>> points;
  for (size_t i = 0; i < spectrum.size(); ++i) {
    points.emplace_back(static_cast<double>(i + 1), 100 * spectrum[i]);
  }
  return points;
}

}  // namespace

nlohmann::json CodecReportJson(const CodecReport& report) {
  nlohmann::json json = {{"model", report.model},
                         {"d_model", report.d_model},
                         {"layers", report.layers},
                         {"tokens", report.tokens},
                         {"perplexity", report.perplexity},
                         {"f16_bytes_per_token_hop", report.f16_bytes()},
                         {"together", CurvesJson(report, report.together)},
                         {"levels", PointsJson(report, report.levels)},
                         {"decoding", PointsJson(report, report.decoding)},
                         {"decoding_batch", report.decoding_batch},
                         {"boundaries", nlohmann::json::array()}};
  if (report.accuracy) {
    json["accuracy"] = *report.accuracy;
    json["questions"] = report.questions;
  }
  for (const BoundaryFindings& boundary : report.boundaries) {
    json["boundaries"].push_back({{"after_layers", boundary.after_layers},
                                  {"massive_dimensions", boundary.massive},
                                  {"alone", CurvesJson(report, boundary.curves)},
                                  {"spectrum", boundary.raw_spectrum},
                                  {"spectrum_without_mean", boundary.centred_spectrum},
                                  {"spectrum_as_coded", boundary.coded_spectrum}});
  }
  return json;
}

std::string CodecReportTable(const CodecReport& report) {
  std::string text = absl::StrCat(
      Head(report), "\n\nThe levels, all boundaries together:\n\n", Markdown(LevelsTable(report)),
      "\n", Markdown(PointsTable(report, report.levels)),
      "\nThe codecs, all boundaries together:\n\n", Markdown(TogetherTable(report)));
  absl::StrAppend(&text, "\nFrames of decoding, ", report.decoding_batch, " sequences at once:\n\n",
                  Markdown(PointsTable(report, report.decoding)));
  for (const BoundaryFindings& boundary : report.boundaries) {
    Table table = {PointHead(report)};
    for (const CodecCurve& curve : boundary.curves) {
      for (const CodecPoint& point : curve.points) table.push_back(PointRow(report, point));
    }
    absl::StrAppend(&text, "\nAfter layer ", boundary.after_layers, " alone (",
                    boundary.massive.size(), " massive dimensions):\n\n", Markdown(table));
  }
  return text;
}

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
    panel.y_least = 1e-4;
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

std::string CodecReportHtml(const CodecReport& report) {
  const std::string model = EscapeXml(report.model);
  return absl::StrCat(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Codecs: ", model,
      "</title>\n", kStyle, "</head>\n<body>\n<main>\n<h1>What coding the hops costs ", model,
      "</h1>\n<p>", EscapeXml(Head(report)),
      " Bytes are those of whole frames: payload, header and checksum. KL is that of the next "
      "token's distribution from the uncoded model's.</p>\n",
      Section("All boundaries together",
              "Diamonds are the levels as they are served; dashed lines are their budgets.",
              TogetherSvg(report)),
      Section("Levels", "What the same bytes, or the same divergence, cost in integer blocks.",
              Html(LevelsTable(report)) + Html(PointsTable(report, report.levels))),
      Section("Codecs", "All boundaries coded alike, in frames of up to 512 tokens.",
              Html(TogetherTable(report))),
      Section("Decoding",
              absl::StrCat("Frames of one token of each of ", report.decoding_batch,
                           " sequences: the header weighs more."),
              Html(PointsTable(report, report.decoding))),
      Section("Each boundary alone", "The others hand over f32 as computed.",
              BoundariesSvg(report)),
      Section("Spectra",
              "How much of the energy lies in which direction. A mean and a few massive dimensions "
              "can hold nearly all of it and say nothing; what is left is what is coded.",
              SpectraSvg(report)),
      "</main>\n</body>\n</html>\n");
}

}  // namespace efedllm
