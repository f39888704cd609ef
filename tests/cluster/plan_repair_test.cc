#include "cluster/plan_repair.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kMiB = 1u << 20;

PlannerInput Input(size_t layers, std::vector<uint64_t> nodes, uint64_t memory = 8000 * kMiB) {
  PlannerInput input;
  input.layers.assign(
      layers,
      {.weight_bytes = 50 * kMiB, .flops_per_token = 100 * kMiB, .kv_bytes_per_token = 1024});
  for (const uint64_t id : nodes) {
    NodeProfile profile{1, memory, 1e10, 2e11, 5e10};
    input.nodes.push_back({NodeId{id}, absl::StrCat("n", id), profile, {}});
  }
  input.rules.kv_tokens_wanted = 4096;
  input.rules.kv_tokens_least = 1024;
  input.rules.row_bytes = 8192;
  return input;
}

Chain ChainOf(const std::vector<uint64_t>& nodes, uint32_t layers_each) {
  Chain chain;
  for (uint32_t i = 0; i < nodes.size(); ++i) {
    chain.stages.push_back(
        {NodeId{nodes[i]}, {i * layers_each, (i + 1) * layers_each}, /*relayed=*/false});
  }
  chain.kv_tokens = 4096;
  chain.keeps_outputs = true;
  return chain;
}

StagePlan PlanOf(std::vector<Chain> chains) {
  StagePlan plan;
  plan.epoch = Epoch{3};
  plan.chains = std::move(chains);
  return plan;
}

std::vector<uint64_t> Nodes(const Chain& chain) {
  std::vector<uint64_t> nodes;
  for (const Stage& stage : chain.stages) nodes.push_back(stage.node.v);
  return nodes;
}

TEST(RepairPlan, GivesALostStageToAStandbyLayerForLayer) {
  const auto plan = RepairPlan(Input(6, {1, 3, 4}), PlanOf({ChainOf({1, 2, 3}, 2)}));
  ASSERT_TRUE(plan.has_value());
  EXPECT_THAT(Nodes(plan->chains[0]), ElementsAre(1, 4, 3));
  EXPECT_EQ(plan->chains[0].stages[1].layers, (LayerRange{2, 4}));
  EXPECT_EQ(plan->chains[0].kv_tokens, 4096u);
  EXPECT_TRUE(plan->chains[0].keeps_outputs);
}

TEST(RepairPlan, OfAPlanWithoutLossesIsThatPlan) {
  const StagePlan plan = PlanOf({ChainOf({1, 2, 3}, 2)});
  EXPECT_EQ(RepairPlan(Input(6, {3, 2, 1, 4}), plan)->chains, plan.chains);
}

TEST(RepairPlan, NeedsANodeThatHoldsNothingAndHasTheMemory) {
  const StagePlan plan = PlanOf({ChainOf({1, 2, 3}, 2)});
  EXPECT_FALSE(RepairPlan(Input(6, {1, 3}), plan).has_value());
  PlannerInput input = Input(6, {1, 3, 4});
  input.nodes[2].profile.memory_bytes = 150 * kMiB;
  EXPECT_FALSE(RepairPlan(input, plan).has_value());
  // Two are lost, and one standby does not replace both.
  EXPECT_FALSE(RepairPlan(Input(6, {1, 4}), plan).has_value());
}

TEST(RepairPlan, RefusesAPlanOfAnotherModel) {
  EXPECT_FALSE(RepairPlan(Input(7, {1, 2, 3}), PlanOf({ChainOf({1, 2, 3}, 2)})).has_value());
  EXPECT_FALSE(RepairPlan(Input(6, {1, 2, 3}), StagePlan()).has_value());
}

TEST(RepairPlan, RelaysAnEdgeWhoseNodesCantReachEachOther) {
  PlannerInput input = Input(6, {1, 3, 4});
  input.links.push_back({NodeId{1}, NodeId{4}, absl::ZeroDuration(), 0, /*reachable=*/false});
  const auto plan = RepairPlan(input, PlanOf({ChainOf({1, 2, 3}, 2)}));
  ASSERT_TRUE(plan.has_value());
  EXPECT_TRUE(plan->chains[0].stages[0].relayed);
}

TEST(KeepOutputs, WhereThereIsMemoryForIt) {
  StagePlan plan = PlanOf({ChainOf({1, 2}, 3)});
  plan.chains[0].keeps_outputs = false;
  KeepOutputs(Input(6, {1, 2}), plan);
  EXPECT_TRUE(plan.chains[0].keeps_outputs);
  EXPECT_EQ(plan.chains[0].kv_tokens, 4096u);
  // Room for 4096 tokens of KV, not of outputs beside: fewer tokens, down to what is demanded.
  const uint64_t tight = 3 * 50 * kMiB + 64 * kMiB + 4096 * 3 * 1024;
  KeepOutputs(Input(6, {1, 2}, tight), plan);
  EXPECT_FALSE(plan.chains[0].keeps_outputs);
  EXPECT_EQ(plan.chains[0].kv_tokens, 4096u);
  KeepOutputs(Input(6, {1, 2}, tight + 30 * kMiB), plan);
  EXPECT_TRUE(plan.chains[0].keeps_outputs);
  EXPECT_LT(plan.chains[0].kv_tokens, 4096u);
}

TEST(FitsBeside, CountsWhatANodeHoldsTwiceOnlyWhereItDiffers) {
  const StagePlan present = PlanOf({ChainOf({1, 2, 3}, 2)});
  const StagePlan two = PlanOf({ChainOf({1, 2}, 3)});
  EXPECT_TRUE(FitsBeside(Input(6, {1, 2, 3}), present, two));
  // Node 1 keeps layers 0 and 1 and gets layer 2: three layers' weights, KV of two and of three.
  const uint64_t kv = 4096 * (2 * 1024 + 8192) + 4096 * (3 * 1024 + 8192);
  EXPECT_TRUE(FitsBeside(Input(6, {1}, 3 * 50 * kMiB + kv), present, two));
  EXPECT_FALSE(FitsBeside(Input(6, {1}, 3 * 50 * kMiB + kv - 1), present, two));
  // The same stage is not held twice.
  EXPECT_TRUE(FitsBeside(Input(6, {1, 2, 3}, 150 * kMiB), present, present));
}

// Whose KV each stage has; 0: none.
std::vector<std::optional<NodeId>> Kept(const std::vector<uint64_t>& nodes) {
  std::vector<std::optional<NodeId>> kept;
  for (const uint64_t node : nodes) {
    kept.push_back(node == 0 ? std::nullopt : std::optional<NodeId>(NodeId{node}));
  }
  return kept;
}

// Names of sequences are a chain's own.
TEST(Succeed, GoesOnWithTheChainThatTheKvIsOf) {
  const StagePlan served = PlanOf({ChainOf({1}, 6), ChainOf({2}, 6)});
  const auto successions = Succeed(served, PlanOf({ChainOf({3}, 6)}), Kept({2}));
  EXPECT_EQ(successions[0]->chain, 1u);
}

TEST(Succeed, OnlyTheStageThatMovedIsLost) {
  const auto successions =
      Succeed(PlanOf({ChainOf({1, 2, 3}, 2)}), PlanOf({ChainOf({1, 4, 3}, 2)}), Kept({1, 0, 3}));
  ASSERT_TRUE(successions[0].has_value());
  EXPECT_THAT(successions[0]->lost, ElementsAre(1));
}

TEST(Succeed, AStageThatGotItsKvHandedOverIsKept) {
  const auto successions =
      Succeed(PlanOf({ChainOf({1, 2, 3}, 2)}), PlanOf({ChainOf({1, 4, 3}, 2)}), Kept({1, 2, 3}));
  EXPECT_THAT(successions[0]->lost, IsEmpty());
}

TEST(Succeed, WhoKeptNoOutputsCantGiveThem) {
  StagePlan served = PlanOf({ChainOf({1, 2, 3}, 2)});
  served.chains[0].keeps_outputs = false;
  const auto successions = Succeed(served, PlanOf({ChainOf({1, 4, 3}, 2)}), Kept({1, 0, 3}));
  EXPECT_THAT(successions[0]->lost, ElementsAre(0, 1));
}

TEST(Succeed, OtherLayersOrAnotherNodeAreNoSuccession) {
  const StagePlan served = PlanOf({ChainOf({1, 2, 3}, 2)});
  EXPECT_FALSE(Succeed(served, PlanOf({ChainOf({1, 2}, 3)}), Kept({1, 2}))[0].has_value());
  EXPECT_FALSE(Succeed(served, PlanOf({ChainOf({1, 2, 3}, 2)}), Kept({0, 0, 0}))[0].has_value());
}

TEST(Succeed, EachReplicaGoesOnWithItsOwn) {
  const StagePlan served = PlanOf({ChainOf({1, 2}, 3), ChainOf({3, 4}, 3)});
  const StagePlan next = PlanOf({ChainOf({3, 4}, 3), ChainOf({1, 5}, 3)});
  const auto successions = Succeed(served, next, Kept({3, 4, 1, 0}));
  EXPECT_EQ(successions[0]->chain, 1u);
  EXPECT_THAT(successions[0]->lost, IsEmpty());
  EXPECT_EQ(successions[1]->chain, 0u);
  EXPECT_THAT(successions[1]->lost, ElementsAre(1));
}

}  // namespace
}  // namespace efedllm
