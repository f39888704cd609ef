#include "app/codec_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "app/codec_report_pages.h"
#include "app/codec_report_plot.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

CodecPoint Point(const char* name, double bytes, double kl) {
  CodecPoint point;
  point.name = name;
  point.codings = {"a", "b"};
  point.bytes = point.payload_bytes = bytes;
  point.mean_kl = point.max_kl = kl;
  point.perplexity = 3 * (1 + kl);
  return point;
}

CodecReport SomeReport() {
  CodecReport report;
  report.model = "some<model>.gguf";
  report.d_model = 100;
  report.layers = 4;
  report.tokens = report.all_tokens = 5;
  report.perplexity = 3;
  report.together = {{"KLT", {Point("klt:0.1", 60, 1e-4), Point("klt:0.2", 40, 1e-2)}},
                     {"int blocks", {Point("int6", 80, 1e-4), Point("int4", 60, 1e-2)}}};
  report.levels = {Point("lossless", 400, 0), Point("transparent", 70, 9e-4),
                   Point("small", 30, 2e-2)};
  report.decoding = {Point("f16", 220, 1e-7)};
  report.boundaries = {{2, {{"KLT", {Point("klt:0.1", 60, 1e-4)}}}, {7}, {0.9, 0.1}, {}, {0.5}}};
  return report;
}

TEST(CodecCurve, IsReadBetweenItsPoints) {
  const CodecCurve curve = *FindCurve(SomeReport().together, "int blocks");
  EXPECT_NEAR(*KlAtBytes(curve, 70), 1e-3, 1e-9);
  EXPECT_NEAR(*BytesAtKl(curve, 1e-3), 70, 1e-9);
  EXPECT_NEAR(*KlAtBytes(curve, 80), 1e-4, 1e-12);
  EXPECT_EQ(KlAtBytes(curve, 81), std::nullopt);
  EXPECT_EQ(BytesAtKl(curve, 1e-5), std::nullopt);
  EXPECT_EQ(FindCurve({}, "KLT"), nullptr);
}

TEST(CodecReportPages, SayWhatWasMeasured) {
  const CodecReport report = SomeReport();
  const std::string table = CodecReportTable(report);
  EXPECT_THAT(table, HasSubstr("| transparent | a, b | 70.0 | 35.0 | 9.00e-04 | 0.001 | 1.00e-03"));
  EXPECT_THAT(table, HasSubstr("none is so small"));
  EXPECT_THAT(table, Not(HasSubstr("tasks, %"))) << "none were asked";
  const std::string html = CodecReportHtml(report);
  EXPECT_THAT(html, HasSubstr("some&lt;model&gt;.gguf"));
  EXPECT_THAT(html, Not(HasSubstr("some<model>")));
  const nlohmann::json json = CodecReportJson(report);
  EXPECT_EQ(json["together"]["KLT"].size(), 2u);
  EXPECT_EQ(json["levels"][1]["share_of_f16"], 0.35);
  EXPECT_EQ(json["boundaries"][0]["massive_dimensions"], (std::vector<int>{7}));
  EXPECT_FALSE(json.contains("accuracy"));
}

TEST(PlotSvg, LeavesOutWhatItsAxesCannotShow) {
  PlotPanel panel;
  panel.title = "a < b";
  panel.y_log = true;
  panel.x_most = 10;
  PlotSeries series;
  series.label = "line";
  series.points = {{1, 1}, {2, 0}, {3, NAN}, {4, 100}, {11, 5}};
  panel.series = {series};
  const std::string svg = PlotSvg("title", {panel}, 3);
  size_t dots = 0;
  for (size_t at = svg.find("<circle"); at != std::string::npos; at = svg.find("<circle", at + 1)) {
    ++dots;
  }
  EXPECT_EQ(dots, 2u + 1u) << "and one in the legend";
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(PlotSvg("title", {PlotPanel()}, 3), HasSubstr("nothing measured"));
}

}  // namespace
}  // namespace efedllm
