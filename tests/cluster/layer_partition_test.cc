#include "cluster/layer_partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "common/random.h"

namespace efedllm {
namespace {

constexpr uint64_t kMiB = 1u << 20;

std::vector<LayerCost> Layers(size_t count, uint64_t weight_bytes = 100 * kMiB) {
  return std::vector<LayerCost>(count, {.weight_bytes = weight_bytes,
                                        .flops_per_token = 2 * weight_bytes,
                                        .kv_bytes_per_token = 1024});
}

PlannerNode Node(uint64_t id, double read_bytes_per_second, uint64_t memory_bytes = 64000 * kMiB) {
  return {NodeId{id},
          "node",
          {.threads = 1,
           .memory_bytes = memory_bytes,
           .read_bytes_per_second = read_bytes_per_second,
           .int8_ops_per_second = 1e15,
           .f32_flops_per_second = 1e15},
          {}};
}

PartitionRules Rules() { return {4096, 512, 64 * kMiB, {{1, 1}}}; }

// As a chain, without the nodes that got nothing.
std::optional<Chain> Partition(const std::vector<LayerCost>& layers,
                               const std::vector<PlannerNode>& nodes, const PartitionRules& rules) {
  const LayerSums sums(layers);
  std::vector<const PlannerNode*> pointers;
  for (const PlannerNode& node : nodes) pointers.push_back(&node);
  const LayerPartitioner partitioner(sums, pointers, rules);
  const std::optional<LayerPartition> best = partitioner.Best();
  const std::optional<LayerPartition> quick = partitioner.Quick();
  EXPECT_EQ(best.has_value(), quick.has_value());
  if (!best) return std::nullopt;
  EXPECT_LE(best->slowest, quick->slowest * (1 + 1e-8));
  Chain chain;
  chain.kv_tokens = best->kv_tokens;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (best->ranges[i].size() > 0) chain.stages.push_back({nodes[i].node, best->ranges[i]});
  }
  return chain;
}

double StageSeconds(const std::vector<LayerCost>& layers, const PlannerNode& node,
                    LayerRange range) {
  double bytes = 0;
  double ops = 0;
  for (uint32_t i = range.first; i < range.last; ++i) {
    bytes += static_cast<double>(layers[i].weight_bytes);
    ops += static_cast<double>(layers[i].flops_per_token);
  }
  return std::pow(std::pow(bytes / node.profile.read_bytes_per_second, 1.5) +
                      std::pow(ops / node.profile.int8_ops_per_second, 1.5),
                  2.0 / 3);
}

// The least bottleneck by trying every partition in order. Infinity: none fits.
double BruteForce(const std::vector<LayerCost>& layers, const std::vector<PlannerNode>& nodes,
                  size_t node, uint32_t first, uint64_t kv_tokens, uint64_t overhead) {
  if (first == layers.size()) return 0;
  if (node == nodes.size()) return std::numeric_limits<double>::infinity();
  double best = BruteForce(layers, nodes, node + 1, first, kv_tokens, overhead);
  uint64_t bytes = overhead;
  for (uint32_t last = first + 1; last <= layers.size(); ++last) {
    bytes += layers[last - 1].weight_bytes + layers[last - 1].kv_bytes_per_token * kv_tokens;
    if (bytes > nodes[node].profile.memory_bytes) break;
    best = std::min(best, std::max(StageSeconds(layers, nodes[node], {first, last}),
                                   BruteForce(layers, nodes, node + 1, last, kv_tokens, overhead)));
  }
  return best;
}

double Bottleneck(const Chain& plan, const std::vector<LayerCost>& layers,
                  const std::vector<PlannerNode>& nodes) {
  double slowest = 0;
  for (const Stage& stage : plan.stages) {
    const auto node = std::find_if(nodes.begin(), nodes.end(),
                                   [&](const PlannerNode& n) { return n.node == stage.node; });
    slowest = std::max(slowest, StageSeconds(layers, *node, stage.layers));
  }
  return slowest;
}

void ExpectWholeModelInNodeOrder(const Chain& plan, size_t layers,
                                 const std::vector<PlannerNode>& nodes) {
  uint32_t next = 0;
  size_t node = 0;
  for (const Stage& stage : plan.stages) {
    EXPECT_EQ(stage.layers.first, next);
    EXPECT_GT(stage.layers.size(), 0u);
    next = stage.layers.last;
    while (node < nodes.size() && nodes[node].node != stage.node) ++node;
    ASSERT_LT(node++, nodes.size());
  }
  EXPECT_EQ(next, layers);
}

TEST(LayerPartition, EqualNodesShareEqually) {
  const std::vector<PlannerNode> nodes = {Node(1, 1e10), Node(2, 1e10), Node(3, 1e10)};
  const std::optional<Chain> plan = Partition(Layers(12), nodes, Rules());
  ASSERT_TRUE(plan.has_value());
  EXPECT_THAT(plan->stages,
              ::testing::ElementsAre(Stage{NodeId{1}, {0, 4}}, Stage{NodeId{2}, {4, 8}},
                                     Stage{NodeId{3}, {8, 12}}));
  EXPECT_EQ(plan->kv_tokens, 4096u);
}

TEST(LayerPartition, AFasterNodeGetsMore) {
  const std::optional<Chain> plan = Partition(Layers(12), {Node(1, 1e10), Node(2, 3e10)}, Rules());
  ASSERT_TRUE(plan.has_value());
  EXPECT_THAT(plan->stages,
              ::testing::ElementsAre(Stage{NodeId{1}, {0, 3}}, Stage{NodeId{2}, {3, 12}}));
}

TEST(LayerPartition, ANodeThatDoesNotHelpGetsNoLayers) {
  // One layer takes node 2 longer than all of them take node 1.
  std::optional<Chain> plan = Partition(Layers(8), {Node(1, 1e10), Node(2, 1e8)}, Rules());
  ASSERT_TRUE(plan.has_value());
  EXPECT_THAT(plan->stages, ::testing::ElementsAre(Stage{NodeId{1}, {0, 8}}));
  // Four layers over three equal nodes: two each are no slower than 2, 1, 1.
  plan = Partition(Layers(4), {Node(1, 1e10), Node(2, 1e10), Node(3, 1e10)}, Rules());
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->stages.size(), 2u);
}

TEST(LayerPartition, MoreNodesThanLayersLeavesSomeOnStandby) {
  std::vector<PlannerNode> nodes;
  for (uint64_t i = 1; i <= 5; ++i) nodes.push_back(Node(i, 1e10));
  const std::optional<Chain> plan = Partition(Layers(3), nodes, Rules());
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->stages.size(), 3u);
}

TEST(LayerPartition, ComputeCountsWhereItIsSlowerThanMemory) {
  std::vector<PlannerNode> nodes = {Node(1, 1e10), Node(2, 1e10)};
  nodes[0].profile.int8_ops_per_second = 1e9;
  nodes[1].profile.int8_ops_per_second = 3e9;
  std::vector<LayerCost> layers = Layers(4);
  for (LayerCost& layer : layers) layer.flops_per_token = 2 * layer.weight_bytes;
  const std::optional<Chain> plan = Partition(layers, nodes, Rules());
  ASSERT_TRUE(plan.has_value());
  EXPECT_THAT(plan->stages,
              ::testing::ElementsAre(Stage{NodeId{1}, {0, 1}}, Stage{NodeId{2}, {1, 4}}));
}

TEST(LayerPartition, MemoryLimitsBindAndOverheadCounts) {
  // Room for 3 layers of 100 MiB and 4096 tokens' KV, and no more.
  const uint64_t three = (64 + 3 * 104) * kMiB;
  std::optional<Chain> plan = Partition(Layers(6), {Node(1, 1e12, three), Node(2, 1e10)}, Rules());
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->stages[0].layers, (LayerRange{0, 3}));
  plan = Partition(Layers(6), {Node(1, 1e12, three - 1), Node(2, 1e10)}, Rules());
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->stages[0].layers, (LayerRange{0, 2}));
}

TEST(LayerPartition, GivesLessKvWhereMemoryIsShort) {
  // 6 layers: 600 MiB and 6 KiB a token. 24 MiB are wanted for KV and 12 are there.
  const std::optional<Chain> plan =
      Partition(Layers(6), {Node(1, 1e10, (64 + 600 + 12) * kMiB)}, Rules());
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->kv_tokens, 2048u);
}

TEST(LayerPartition, SurvivesNodesThatMeasuredNothingAndSizesThatOverflow) {
  PlannerNode blank;
  blank.node = NodeId{1};
  blank.profile.memory_bytes = UINT64_MAX;
  EXPECT_TRUE(Partition(Layers(4), {blank}, Rules()).has_value());
  const std::vector<LayerCost> giant(3, {.weight_bytes = UINT64_MAX / 2,
                                         .flops_per_token = UINT64_MAX,
                                         .kv_bytes_per_token = UINT64_MAX / 2});
  EXPECT_FALSE(Partition(giant, {blank}, Rules()).has_value());
}

TEST(LayerPartition, EqualsBruteForceOnRandomClusters) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    std::vector<LayerCost> layers(1 + random.Below(8));
    for (LayerCost& layer : layers) {
      layer.weight_bytes = (1 + random.Below(50)) * kMiB;
      layer.flops_per_token = 2 * layer.weight_bytes;
      layer.kv_bytes_per_token = random.Below(4) * 1024;
    }
    std::vector<PlannerNode> nodes;
    const size_t count = 1 + random.Below(4);
    for (uint64_t i = 0; i < count; ++i) {
      nodes.push_back(Node(i + 1, static_cast<double>(1 + random.Below(20)) * 1e9,
                           (1 + random.Below(300)) * kMiB));
      nodes.back().profile.int8_ops_per_second = static_cast<double>(1 + random.Below(40)) * 1e9;
    }
    const PartitionRules rules = {2048, 128, 4 * kMiB, {{1, 1}}};
    const std::optional<Chain> plan = Partition(layers, nodes, rules);
    const uint64_t kv_tokens = plan.has_value() ? plan->kv_tokens : rules.kv_tokens_least;
    const double best = BruteForce(layers, nodes, 0, 0, kv_tokens, rules.overhead_bytes);
    ASSERT_EQ(plan.has_value(), best < std::numeric_limits<double>::infinity()) << "seed " << seed;
    if (!plan.has_value()) continue;
    ExpectWholeModelInNodeOrder(*plan, layers.size(), nodes);
    EXPECT_NEAR(Bottleneck(*plan, layers, nodes), best, best * 1e-12) << "seed " << seed;
    if (kv_tokens < rules.kv_tokens_wanted) {  // it is the most that fits
      EXPECT_EQ(BruteForce(layers, nodes, 0, 0, kv_tokens + 1, rules.overhead_bytes),
                std::numeric_limits<double>::infinity());
    }
  }
}

TEST(LayerPartition, AThousandLayersOverAHundredNodesIsQuick) {
  std::vector<PlannerNode> nodes;
  for (uint64_t i = 1; i <= 100; ++i)
    nodes.push_back(Node(i, 1e9 * static_cast<double>(1 + i % 7)));
  const std::vector<LayerCost> layers = Layers(1000, kMiB);
  const std::optional<Chain> plan = Partition(layers, nodes, Rules());
  ASSERT_TRUE(plan.has_value());
  ExpectWholeModelInNodeOrder(*plan, layers.size(), nodes);
}

TEST(LayerPartition, MovesAsFewBytesAsTheSlackAllows) {
  const std::vector<LayerCost> layers = Layers(12);
  const std::vector<PlannerNode> nodes = {Node(1, 1e10), Node(2, 1.04e10), Node(3, 1e10)};
  const LayerSums sums(layers);
  const PartitionRules rules = Rules();
  const LayerPartitioner partitioner(sums, {&nodes[0], &nodes[1], &nodes[2]}, rules);
  const std::vector<LayerRange> present = {{0, 5}, {5, 8}, {8, 12}};
  // Five layers on one node are a quarter slower than four.
  std::optional<LayerPartition> partition = partitioner.Nearest(present, 1.05);
  ASSERT_TRUE(partition.has_value());
  EXPECT_THAT(partition->ranges,
              ::testing::ElementsAre(LayerRange{0, 4}, LayerRange{4, 8}, LayerRange{8, 12}));
  partition = partitioner.Nearest(present, 1.3);
  ASSERT_TRUE(partition.has_value());
  EXPECT_EQ(partition->ranges, present);
}

TEST(LayerPartition, BelievesWhatWasMeasuredMoreThanTheProfile) {
  std::vector<PlannerNode> nodes = {Node(1, 1e10), Node(2, 1e10)};
  nodes[0].measured = {{1, 3.0}, {64, 1.0}};
  const std::optional<Chain> plan = Partition(Layers(12), nodes, Rules());
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->stages[0].layers, (LayerRange{0, 3}));
  EXPECT_DOUBLE_EQ(FactorAt(nodes[0].measured, 8), 2.0);
  EXPECT_DOUBLE_EQ(FactorAt(nodes[0].measured, 512), 1.0);
}

}  // namespace
}  // namespace efedllm
