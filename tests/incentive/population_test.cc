#include "incentive/population.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/file.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// With a quarter of its machines: a second for each run.
PopulationScenario ScenarioFile(const std::string& name) {
  const auto text = ReadFile(absl::StrCat(EFEDLLM_SOURCE_DIR "/config/scenarios/", name), 1 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  auto scenario = ParsePopulationScenario(*text);
  EXPECT_TRUE(scenario.ok()) << scenario.status();
  for (PopulationGroup& group : scenario->groups) group.machines = 1 + group.machines / 4;
  return *scenario;
}

std::string ErrorOf(absl::string_view toml) {
  return std::string(ParsePopulationScenario(toml).status().message());
}

TEST(Population, EveryCheatEarnsLessThanHonestWork) {
  PopulationScenario scenario = ScenarioFile("cheats.toml");
  scenario.rounds = 300;
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    scenario.seed = seed;
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    const PopulationResult result = SimulatePopulation(scenario, IncentiveRules());
    EXPECT_THAT(result.Problems(), IsEmpty()) << PopulationText(result);
  }
}

TEST(Population, TheHonestAreNeverPutOutAndPaidByWhatTheyDo) {
  PopulationScenario scenario = ScenarioFile("honest.toml");
  scenario.rounds = 200;
  const PopulationResult result = SimulatePopulation(scenario, IncentiveRules());
  EXPECT_THAT(result.Problems(), IsEmpty()) << PopulationText(result);
  const double steady = result.EarnedPerMachine(result.groups[0]);
  for (size_t i = 1; i < result.groups.size(); ++i) {
    EXPECT_LE(result.EarnedPerMachine(result.groups[i]), steady) << result.groups[i].group.name;
  }
}

TEST(Population, WithoutAuditsCheatingWouldPay) {
  // That the simulation can tell: a floor of a thousandth and a penalty of almost nothing.
  IncentiveRules rules;
  rules.audit_floor_ppm = 1000;
  rules.audit_recheck_ppm = kWhole;
  rules.penalty_margin_ppm = kWhole;
  rules.penalty_least_ppm = 0;
  rules.escrow_chunks = 0;
  rules.escrow_seconds = 0;
  rules.trusted_at_ppm = 500'000;
  rules.probation_again_ppm = 0;
  rules.probation_chunks = 5;
  PopulationScenario scenario = ScenarioFile("cheats.toml");
  scenario.rounds = 100;
  scenario.groups.resize(6);
  EXPECT_FALSE(SimulatePopulation(scenario, rules).Problems().empty());
}

TEST(Population, TheSameSeedGivesTheSameResult) {
  PopulationScenario scenario = ScenarioFile("cheats.toml");
  scenario.rounds = 20;
  const IncentiveRules rules;
  const auto first = PopulationJson(SimulatePopulation(scenario, rules));
  EXPECT_EQ(first, PopulationJson(SimulatePopulation(scenario, rules)));
  scenario.seed = 2;
  EXPECT_NE(first["groups"], PopulationJson(SimulatePopulation(scenario, rules))["groups"]);
}

TEST(Population, MoneyAddsUp) {
  PopulationScenario scenario = ScenarioFile("cheats.toml");
  scenario.rounds = 100;
  const PopulationResult result = SimulatePopulation(scenario, IncentiveRules());
  for (const PopulationGroupResult& group : result.groups) {
    EXPECT_EQ(group.posted + group.voided + group.pending, group.honest_pay) << group.group.name;
    EXPECT_LE(group.penalties, group.posted) << group.group.name;
  }
}

TEST(PopulationScenario, SaysWhatIsWrongAndWhere) {
  const std::string honest = "[[group]]\nkind = \"honest\"\nmachines = 1\n";
  EXPECT_EQ(ErrorOf(honest), "");
  EXPECT_THAT(ErrorOf(""), HasSubstr("no group is of kind \"honest\""));
  EXPECT_THAT(ErrorOf(honest + honest), HasSubstr("two groups"));
  EXPECT_THAT(ErrorOf("[[group]]\nkind = \"saint\"\nmachines = 1\n"),
              HasSubstr("line 2: group.kind"));
  EXPECT_EQ(ErrorOf(honest + "every = 5\n"), "line 4: group.every is not known here");
  EXPECT_THAT(ErrorOf("round = 5\n" + honest), HasSubstr("line 1: round is not known"));
  EXPECT_THAT(ErrorOf("[group]\n"), HasSubstr("line 1: there is no table [group]"));
  EXPECT_THAT(ErrorOf("rounds = 100000\nchunks-per-round = 100000\n" + honest),
              HasSubstr("at most 50000000"));
}

}  // namespace
}  // namespace efedllm
