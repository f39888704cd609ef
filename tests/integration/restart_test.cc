// A coordinator that starts again with the state of the one before.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "coordinator/node_drains.h"
#include "integration/cluster_world.h"

namespace efedllm {
namespace {

std::map<NodeId, LayerRange> Layers(ClusterWorld& world) {
  std::map<NodeId, LayerRange> layers;
  for (const Member& member : world.coordinator().cluster_status().members) {
    if (member.stage() != nullptr) layers[member.node] = member.stage()->layers;
  }
  return layers;
}

// One chain of all, however busy the machine was.
void OneChain(CoordinatorOptions& options) { options.layout = Layout::kChain; }

bool ServesAgain(ClusterWorld& world, size_t stages) {
  world.RestartCoordinator();
  return world.AwaitServing(stages);
}

TEST(Restart, TheSameWorkersGetTheSameLayersAndFetchNothing) {
  ClusterWorld world(kSeedlingPath, 0, OneChain);
  for (int i = 0; i < 3; ++i) world.Join();
  ASSERT_TRUE(world.AwaitServing(3));
  const std::map<NodeId, LayerRange> before = Layers(world);
  const Epoch epoch = world.coordinator().cluster_status().epoch;
  const std::vector<int32_t> prompt = SeedlingTokens("Once upon a time");
  const std::vector<int32_t> tokens = world.Generate(prompt, 40).tokens;
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(ServesAgain(world, 3));
    EXPECT_EQ(Layers(world), before);
    const ClusterStatus status = world.coordinator().cluster_status();
    EXPECT_GT(status.epoch, epoch);
    EXPECT_EQ(status.members.size(), 3u);
    for (const Member& member : status.members) EXPECT_EQ(member.bytes_fetched, 0u);
    EXPECT_EQ(world.Generate(prompt, 40).tokens, tokens);
  }
}

TEST(Restart, ADrainedNodeStaysDrainedUntilItIsPutBack) {
  ClusterWorld world(kSeedlingPath, 0, OneChain);
  world.Join();
  world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  const auto drained = world.coordinator().drains().Drain("worker-0");
  ASSERT_TRUE(drained.ok()) << drained.status();
  EXPECT_TRUE(drained->changed);
  EXPECT_FALSE(world.coordinator().drains().Drain("worker-0")->changed);
  const auto holds_nothing = [&](const ClusterStatus& status) {
    return std::all_of(status.members.begin(), status.members.end(), [&](const Member& member) {
      return (member.node == drained->node.node) == (member.stage() == nullptr);
    });
  };
  ASSERT_TRUE(world.AwaitStatus(holds_nothing));
  ASSERT_TRUE(ServesAgain(world, 1));
  EXPECT_EQ(Layers(world).count(drained->node.node), 0u);
  EXPECT_EQ(world.coordinator().drains().List().count(drained->node.node), 1u);
  EXPECT_TRUE(world.coordinator().drains().Undrain("worker-0")->changed);
  EXPECT_TRUE(world.AwaitServing(2));
}

}  // namespace
}  // namespace efedllm
