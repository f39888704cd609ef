#include "app/codec_report_pages.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "app/codec_report_plot.h"
#include "svd/codec_policy.h"

namespace efedllm {
namespace {

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
  if (point.bound_bytes) json["gaussian_bound_bytes"] = *point.bound_bytes;
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

// How near the KLT codec comes to what can be had.
Table BoundTable(const CodecReport& report) {
  Table table = {{"KLT", "payload, bytes a token", "% of f16", "bound, bytes", "% of f16",
                  "above the bound, %"}};
  const CodecCurve* klt = FindCurve(report.together, "KLT");
  for (const CodecPoint& point : klt->points) {
    if (!point.bound_bytes) continue;
    table.push_back(
        {point.name, absl::StrFormat("%.1f", point.payload_bytes),
         absl::StrFormat("%.1f", Percent(report, point.payload_bytes)),
         absl::StrFormat("%.1f", *point.bound_bytes),
         absl::StrFormat("%.1f", Percent(report, *point.bound_bytes)),
         absl::StrFormat("%.1f", 100 * (point.payload_bytes / *point.bound_bytes - 1))});
  }
  return table;
}

constexpr const char* kBoundText =
    "The bound is the rate-distortion function of independent Gaussians with the variances of the "
    "basis, at the same distortion. A uniform step with ideal entropy coding costs up to a quarter "
    "of a bit a coefficient more; coefficients that are not Gaussian can cost less.";

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
  absl::StrAppend(&text, "\n", kBoundText, "\n\n", Markdown(BoundTable(report)));
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
      Section("How near to the bound", kBoundText, Html(BoundTable(report))),
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
