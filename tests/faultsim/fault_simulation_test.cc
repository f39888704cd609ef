#include "faultsim/fault_simulation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"

namespace efedllm::faultsim {
namespace {

FaultSimulation& Simulation() {
  spdlog::set_level(spdlog::level::off);
  static FaultSimulation& simulation = *FaultSimulation::Create(testing::TempDir())->release();
  return simulation;
}

std::vector<std::string> LogOf(uint64_t seed) {
  std::vector<std::string> lines;
  RunOptions options;
  options.seed = seed;
  options.log = [&](const std::string& line) { lines.push_back(line); };
  (void)Simulation().Run(options);
  return lines;
}

TEST(FaultSimulation, TheSameSeedGivesTheSameRun) {
  for (uint64_t seed = 1; seed <= 100; ++seed)
    EXPECT_THAT(LogOf(seed), testing::ContainerEq(LogOf(seed))) << seed;
}

TEST(FaultSimulation, EachRunHasAtLeastSoManyEvents) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    RunOptions options;
    options.seed = seed;
    EXPECT_GE(Simulation().Run(options).steps, 500u) << seed;
  }
}

// Each planted bug, and the check that finds it.
TEST(FaultSimulation, FindsEachPlantedBug) {
  constexpr uint64_t kSeeds = 4000;
  const std::map<Mutation, std::string> expected = {
      // Either a wrong token, or a step that no stage can run.
      {Mutation::kSkippedEpochCheck, ""},
      {Mutation::kResumesTooFar, ""},
      {Mutation::kForgetsNobody, "nodes hold no more KV than is known"},
      {Mutation::kStaleOutputs, "tokens are those of an undisturbed run"},
      {Mutation::kOverlappingLayers, "the plan is legal"},
      {Mutation::kEpochsNotSaved, "epochs grow"},
      {Mutation::kResultsOutOfOrder, "tokens are those of an undisturbed run"},
      {Mutation::kUncheckedFrames, "tokens are those of an undisturbed run"},
      {Mutation::kTokenSaidTwice, "tokens are those of an undisturbed run"},
      {Mutation::kKvNotFreed, "nodes hold no more KV than is known"},
      {Mutation::kWrongLineage, "requests fail only as they may"},
      {Mutation::kGhostLinks, "a node is attached once"},
  };
  for (const MutationInfo& info : AllMutations()) {
    ASSERT_TRUE(expected.count(info.mutation)) << info.name;
    std::string found;
    uint64_t seed = 1;
    for (; seed <= kSeeds && found.empty(); ++seed) {
      RunOptions options;
      options.seed = seed;
      options.mutation = info.mutation;
      found = Simulation().Run(options).violation;
      options.mutation = Mutation::kNone;
      // What fails without it, too, tells nothing.
      if (!found.empty() && !Simulation().Run(options).violation.empty()) found.clear();
    }
    EXPECT_FALSE(found.empty()) << info.name << " was not found in " << kSeeds << " seeds";
    EXPECT_TRUE(absl::StartsWith(found, expected.at(info.mutation))) << info.name << ": " << found;
    std::printf("%-22s seed %4lu  %s\n", std::string(info.name).c_str(),
                static_cast<unsigned long>(seed - 1), found.c_str());
  }
}

}  // namespace
}  // namespace efedllm::faultsim
