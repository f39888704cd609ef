// Replicas, and plans that are made anew by measured times, in a real cluster.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/time/clock.h"
#include "integration/cluster_world.h"

namespace efedllm {
namespace {

const std::string kPrompt = "Once upon a time there was a fox named Milo.";
constexpr uint32_t kTokens = 60;

const std::vector<int32_t>& Expected() {
  static const auto& tokens = *new std::vector<int32_t>([] {
    ClusterWorld world(kSeedlingPath);
    EXPECT_TRUE(world.AwaitServing(0));
    return world.Generate(SeedlingTokens(kPrompt), kTokens).tokens;
  }());
  return tokens;
}

uint32_t LayersOf(ClusterWorld& world, const std::string& worker) {
  for (const Member& member : world.coordinator().cluster_status().members) {
    if (member.hello.name == worker) return member.present ? member.present->layers.size() : 0;
  }
  return 0;
}

TEST(Planning, ReplicasShareTheRequests) {
  ClusterWorld world(kSeedlingPath, 2,
                     [](CoordinatorOptions& options) { options.layout = Layout::kReplicas; });
  world.Join();
  world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  EXPECT_EQ(LayersOf(world, "worker-0"), LayersOf(world, "worker-1"));
  std::vector<std::shared_ptr<Generation>> generations;
  for (int i = 0; i < 8; ++i) generations.push_back(world.Submit(SeedlingTokens(kPrompt), kTokens));
  for (const auto& generation : generations) {
    ASSERT_NE(generation, nullptr);
    EXPECT_EQ(world.Collect(*generation).tokens, Expected());
  }
  absl::SleepFor(absl::Seconds(1));  // heartbeats bring the counters
  for (const Member& member : world.coordinator().cluster_status().members) {
    EXPECT_GT(member.tokens, kTokens) << member.hello.name;
  }
}

TEST(Planning, AReplicaThatLeavesChangesNoText) {
  ClusterWorld world(kSeedlingPath, 2,
                     [](CoordinatorOptions& options) { options.layout = Layout::kReplicas; });
  world.Join();
  world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  std::vector<std::shared_ptr<Generation>> generations;
  for (int i = 0; i < 4; ++i) generations.push_back(world.Submit(SeedlingTokens(kPrompt), kTokens));
  world.Leave(1);
  for (const auto& generation : generations) {
    ASSERT_NE(generation, nullptr);
    EXPECT_EQ(world.Collect(*generation).tokens, Expected());
  }
  EXPECT_TRUE(world.AwaitServing(1));
}

TEST(Planning, MeasuredTimesMoveLayersWithoutFailingARequest) {
  ClusterWorld world(kSeedlingPath, 2, [](CoordinatorOptions& options) {
    options.rules.replan_interval = absl::Milliseconds(300);
    options.rules.join_patience = absl::Milliseconds(200);
  });
  // It says that it is four times as fast as the other, and is many times slower.
  world.Join([](WorkerOptions& options) {
    options.profile = NodeProfile{1, options.memory_bytes, 4e9, 4e9, 4e9};
    options.tamper.outputs = [](const Step&, ConstMatrixRef, MatrixRef) {
      absl::SleepFor(absl::Milliseconds(5));
    };
  });
  world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  const uint32_t before = LayersOf(world, "worker-0");
  EXPECT_GT(before, 2 * LayersOf(world, "worker-1"));
  const absl::Time until = absl::Now() + absl::Seconds(60);
  while (LayersOf(world, "worker-0") == before && absl::Now() < until) {
    const Generated generated = world.Generate(SeedlingTokens(kPrompt), kTokens);
    ASSERT_TRUE(generated.status.ok()) << generated.status;
    EXPECT_EQ(generated.tokens, Expected());
  }
  EXPECT_LT(LayersOf(world, "worker-0"), before);
  EXPECT_EQ(world.Generate(SeedlingTokens(kPrompt), kTokens).tokens, Expected());
}

}  // namespace
}  // namespace efedllm
