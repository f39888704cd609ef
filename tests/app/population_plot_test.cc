#include "app/population_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace efedllm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(PopulationPlots, ShowEveryGroupByItsName) {
  PopulationScenario scenario;
  scenario.rounds = 20;
  PopulationGroup honest;
  honest.name = "plain & <honest>";
  PopulationGroup liar;
  liar.name = "liar";
  liar.kind = PopulationKind::kConstant;
  scenario.groups = {honest, liar};
  const auto plots = PopulationPlots(SimulatePopulation(scenario, IncentiveRules()));
  ASSERT_EQ(plots.size(), 3u);
  EXPECT_EQ(plots[0].file, "rewards.svg");
  EXPECT_EQ(plots[1].file, "detection.svg");
  EXPECT_EQ(plots[2].file, "eviction.svg");
  for (const PopulationPlot& plot : plots) {
    EXPECT_THAT(plot.svg, HasSubstr("liar")) << plot.file;
    EXPECT_THAT(plot.svg, Not(HasSubstr("<honest>"))) << plot.file;
    EXPECT_THAT(plot.svg, HasSubstr("</svg>")) << plot.file;
  }
  EXPECT_THAT(plots[0].svg, HasSubstr("plain &amp; &lt;honest&gt;"));
}

}  // namespace
}  // namespace efedllm
