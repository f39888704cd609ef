#include "cluster/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/random.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr uint64_t kMiB = 1u << 20;

// Nodes of 10 GB/s and 200 Gop/s read a layer of 50 MB in 5 ms.
std::vector<LayerCost> Layers(size_t count, uint64_t weight_bytes = 50'000'000) {
  return std::vector<LayerCost>(count, {.weight_bytes = weight_bytes,
                                        .flops_per_token = 2 * weight_bytes,
                                        .kv_bytes_per_token = 1024});
}

PlannerNode Node(uint64_t id, double speed = 1, uint64_t memory_bytes = 64000 * kMiB) {
  return {NodeId{id},
          absl::StrCat("n", id),
          {.threads = 1,
           .memory_bytes = memory_bytes,
           .read_bytes_per_second = 1e10 * speed,
           .int8_ops_per_second = 2e11 * speed,
           .f32_flops_per_second = 5e10 * speed},
          {}};
}

PlannerInput Input(size_t layers, std::vector<PlannerNode> nodes) {
  PlannerInput input;
  input.layers = Layers(layers);
  input.nodes = std::move(nodes);
  input.rules.kv_tokens_wanted = 16 * 2048;
  input.rules.kv_tokens_least = 2048;
  input.rules.row_bytes = 8192;
  return input;
}

void AddLink(PlannerInput& input, uint64_t a, uint64_t b, double rtt_millis,
             double bytes_per_second = 1e9, bool reachable = true) {
  for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
    input.links.push_back(
        {NodeId{from}, NodeId{to}, absl::Milliseconds(rtt_millis), bytes_per_second, reachable});
  }
}

std::vector<uint64_t> Order(const Chain& chain) {
  std::vector<uint64_t> nodes;
  for (const Stage& stage : chain.stages) nodes.push_back(stage.node.v);
  return nodes;
}

void ExpectWhole(const StagePlan& plan, size_t layers) {
  std::vector<NodeId> seen;
  for (const Chain& chain : plan.chains) {
    uint32_t next = 0;
    for (const Stage& stage : chain.stages) {
      EXPECT_EQ(stage.layers.first, next);
      EXPECT_GT(stage.layers.size(), 0u);
      next = stage.layers.last;
      seen.push_back(stage.node);
    }
    EXPECT_EQ(next, layers);
    EXPECT_FALSE(chain.stages.back().relayed);
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
}

TEST(Planner, PutsAllEqualNodesOfALocalNetworkIntoOneChain) {
  for (const size_t count : {1, 2, 3, 4, 8}) {
    std::vector<PlannerNode> nodes;
    for (uint64_t i = 1; i <= count; ++i) nodes.push_back(Node(i));
    const absl::StatusOr<PlanReport> report = MakePlan(Input(24, nodes));
    ASSERT_TRUE(report.ok()) << report.status();
    ASSERT_EQ(report->plan.chains.size(), 1u);
    EXPECT_EQ(report->plan.chains[0].stages.size(), count);
    EXPECT_EQ(report->plan.chains[0].kv_tokens, 16u * 2048);
    ExpectWhole(report->plan, 24);
    EXPECT_TRUE(report->standby.empty());
  }
}

TEST(Planner, AFasterNodeGetsMoreLayers) {
  const absl::StatusOr<PlanReport> report =
      MakePlan(Input(28, {Node(1, 0.25), Node(2, 0.5), Node(3, 1)}));
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(
      report->plan.chains[0].stages,
      ElementsAre(Stage{NodeId{1}, {0, 4}}, Stage{NodeId{2}, {4, 12}}, Stage{NodeId{3}, {12, 28}}));
}

TEST(Planner, LeavesOutWhoWouldHoldUpTheOthersAndSaysWhy) {
  PlannerInput input = Input(8, {Node(1), Node(2, 0.02), Node(3, 1, 70 * kMiB)});
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(Order(report->plan.chains[0]), ElementsAre(1u));
  ASSERT_EQ(report->standby.size(), 2u);
  EXPECT_THAT(report->standby[0].why, HasSubstr("a single layer takes it longer"));
  EXPECT_THAT(report->standby[1].why, HasSubstr("its memory holds no layer"));
}

TEST(Planner, WhoSeemsSlowTakesPartUntilItIsMeasuredAtWork) {
  // Beside other work, the probe of the second one saw a third of its memory's speed.
  PlannerInput input = Input(22, {Node(1), Node(2)});
  for (PlannerNode& node : input.nodes) node.profile.int8_ops_per_second = 3e11;
  input.nodes[0].profile.read_bytes_per_second = 4.06e9;
  input.nodes[1].profile.read_bytes_per_second = 1.4e9;
  EXPECT_EQ(MakePlan(input)->plan.chains[0].stages.size(), 2u);
}

TEST(Planner, TellsWhereANodeWouldSlowDownOthers) {
  PlannerInput input = Input(16, {Node(1), Node(2), Node(3, 0.4)});
  AddLink(input, 0, 3, 400);
  AddLink(input, 1, 3, 400);
  AddLink(input, 2, 3, 400);
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(Order(report->plan.chains[0]), ElementsAre(1u, 2u));
  ASSERT_EQ(report->standby.size(), 1u);
  EXPECT_THAT(report->standby[0].why, HasSubstr("with it the plan would give"));
}

TEST(Planner, NodesThatAreNearEachOtherAreNeighbours) {
  // Two sites of two nodes; the coordinator is at the first.
  PlannerInput input = Input(16, {Node(1), Node(2), Node(3), Node(4)});
  for (const uint64_t far : {2u, 4u}) {
    AddLink(input, 0, far, 20);
    for (const uint64_t near : {1u, 3u}) AddLink(input, near, far, 20);
  }
  AddLink(input, 2, 4, 1);
  AddLink(input, 0, 1, 1);
  AddLink(input, 0, 3, 1);
  AddLink(input, 1, 3, 1);
  input.rules.layout = Layout::kChain;
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  const std::vector<uint64_t> order = Order(report->plan.chains[0]);
  ASSERT_EQ(order.size(), 4u);
  const auto at = [&](uint64_t node) { return std::find(order.begin(), order.end(), node); };
  EXPECT_EQ(std::abs(at(2) - at(4)), 1);
}

TEST(Planner, ANoisyLocalNetworkDoesNotReorderNodes) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Random random(seed);
    PlannerInput input = Input(16, {Node(1), Node(2), Node(3), Node(4)});
    for (uint64_t a = 0; a <= 4; ++a) {
      for (uint64_t b = a + 1; b <= 4; ++b) {
        AddLink(input, a, b, 0.1 + 0.01 * static_cast<double>(random.Below(30)));
      }
    }
    EXPECT_THAT(Order(MakePlan(input)->plan.chains[0]), ElementsAre(1u, 2u, 3u, 4u));
  }
}

TEST(Planner, NeighboursThatCannotReachEachOtherAreAvoided) {
  PlannerInput input = Input(12, {Node(1), Node(2), Node(3)});
  AddLink(input, 1, 2, 1, 1e9, false);
  for (const uint64_t node : {1u, 2u, 3u}) AddLink(input, 0, node, 5);
  AddLink(input, 1, 3, 5);
  AddLink(input, 2, 3, 5);
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(Order(report->plan.chains[0])[1], 3u);
  for (const Stage& stage : report->plan.chains[0].stages) EXPECT_FALSE(stage.relayed);
}

TEST(Planner, AnEdgeThatCannotBeAvoidedIsRelayedAndThePlanSaysSo) {
  PlannerInput input = Input(12, {Node(1), Node(2)});
  AddLink(input, 1, 2, 1, 1e9, false);
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  ASSERT_EQ(report->plan.chains[0].stages.size(), 2u);
  EXPECT_TRUE(report->plan.chains[0].stages[0].relayed);
  EXPECT_FALSE(report->plan.chains[0].stages[1].relayed);
  EXPECT_THAT(report->advice, testing::Contains(HasSubstr("coordinator passes its frames on")));
}

TEST(Planner, OneNodeAloneWhereHopsTakeMoreThanTheyBring) {
  PlannerInput input = Input(4, {Node(1), Node(2, 0.3)});
  AddLink(input, 0, 1, 2);
  AddLink(input, 0, 2, 300, 1e6);
  AddLink(input, 1, 2, 300, 1e6);
  input.rules.layout = Layout::kAuto;
  absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(Order(report->plan.chains[0]), ElementsAre(1u));
  EXPECT_THAT(report->advice, testing::Contains(HasSubstr("one node is faster: n1 alone")));
  input.rules.layout = Layout::kChain;
  report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->plan.chains[0].stages.size(), 2u);
}

TEST(Planner, AChainThatWasAskedForUsesEveryNode) {
  PlannerInput input = Input(8, {Node(1), Node(2, 0.02), Node(3)});
  input.rules.layout = Layout::kChain;
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->plan.chains[0].stages.size(), 3u);
  ExpectWhole(report->plan, 8);
}

TEST(Planner, TinyHopsExcludeNobody) {
  // Layers of 0.1 ms: the hops of a local network take longer than they do.
  PlannerInput input = Input(8, {Node(1), Node(2)});
  input.layers = Layers(8, 1'000'000);
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  ASSERT_EQ(report->plan.chains.size(), 1u);
  EXPECT_EQ(report->plan.chains[0].stages.size(), 2u);
}

TEST(Planner, ReplicasWhereAChainWouldPayForLongLinks) {
  PlannerInput input = Input(12, {Node(1), Node(2), Node(3), Node(4)});
  for (const uint64_t a : {1u, 2u, 3u, 4u}) {
    AddLink(input, 0, a, 40);
    for (uint64_t b = a + 1; b <= 4; ++b) AddLink(input, a, b, 300);
  }
  absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_GT(report->plan.chains.size(), 1u);
  ExpectWhole(report->plan, 12);
  input.rules.layout = Layout::kChain;
  report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->plan.chains.size(), 1u);
}

TEST(Planner, ReplicasWhenAsked) {
  PlannerInput input = Input(12, {Node(1), Node(2)});
  input.rules.layout = Layout::kReplicas;
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->plan.chains.size(), 2u);
  ExpectWhole(report->plan, 12);
}

TEST(Planner, MoreNodesThanLayersMakeReplicas) {
  std::vector<PlannerNode> nodes;
  for (uint64_t i = 1; i <= 12; ++i) nodes.push_back(Node(i));
  PlannerInput input = Input(3, nodes);
  input.rules.streams = 64;
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_GT(report->plan.chains.size(), 1u);
  ExpectWhole(report->plan, 3);
}

TEST(Planner, KeepsThePresentPlanWhereAnotherIsHardlyBetter) {
  PlannerInput input = Input(24, {Node(1), Node(2), Node(3)});
  input.present.chains = {{{{NodeId{2}, {0, 8}}, {NodeId{3}, {8, 16}}, {NodeId{1}, {16, 24}}}, 1}};
  input.nodes[0].profile.read_bytes_per_second *= 0.97;
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->plan.chains[0].stages, input.present.chains[0].stages);
}

TEST(Planner, MovesFewLayersWhenANodeIsLost) {
  PlannerInput input = Input(24, {Node(1), Node(3), Node(4)});
  input.present.chains = {
      {{{NodeId{4}, {0, 6}}, {NodeId{2}, {6, 12}}, {NodeId{3}, {12, 18}}, {NodeId{1}, {18, 24}}},
       1}};
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(
      report->plan.chains[0].stages,
      ElementsAre(Stage{NodeId{4}, {0, 8}}, Stage{NodeId{3}, {8, 16}}, Stage{NodeId{1}, {16, 24}}));
}

TEST(Planner, PlansByMeasuredTimes) {
  PlannerInput input = Input(24, {Node(1), Node(2)});
  input.nodes[0].measured = {{1, 2.0}};
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->plan.chains[0].stages[0].layers, (LayerRange{0, 8}));
}

TEST(Planner, PredictsARoundAsTheMicroBatchesGo) {
  // Two stages of 86 ms: sixteen sequences in two micro-batches of eight.
  PlannerInput input = Input(24, {Node(1), Node(2)});
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok());
  EXPECT_NEAR(report->plan.prediction.tokens_per_second, 16 / 0.172, 2);
  EXPECT_NEAR(report->plan.prediction.single_tokens_per_second, 1 / 0.123, 0.1);
  const std::vector<ChainForecast> forecast = ForecastPlan(input, report->plan);
  ASSERT_EQ(forecast.size(), 1u);
  EXPECT_EQ(forecast[0].streams, 16u);
  EXPECT_EQ(forecast[0].decode.rows, 8u);
  EXPECT_GT(forecast[0].stages[0].share, 0.95);
  EXPECT_DOUBLE_EQ(PredictPlan(input, report->plan).tokens_per_second,
                   report->plan.prediction.tokens_per_second);
}

TEST(Planner, SaysHowMuchMemoryIsMissingAndThatIsEnough) {
  PlannerInput input = Input(10, {Node(1, 1, 364 * kMiB), Node(2, 1, 364 * kMiB)});
  input.layers = std::vector<LayerCost>(10, {100 * kMiB, 200 * kMiB, 1024});
  input.rules.kv_tokens_least = input.rules.kv_tokens_wanted = 512;
  const absl::Status status = MakePlan(input).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("need 1005.0 MiB"));
  EXPECT_THAT(message, HasSubstr("2 nodes have 600.0 MiB"));
  EXPECT_THAT(message, HasSubstr("4 of 10 layers"));
  EXPECT_THAT(message, HasSubstr("667.0 MiB more"));  // 6 layers of 100.5 MiB and the overhead
  input.nodes.push_back(Node(3, 1, 667 * kMiB));
  EXPECT_TRUE(MakePlan(input).ok());
  input.nodes[2].profile.memory_bytes -= 1;
  EXPECT_FALSE(MakePlan(input).ok());
}

TEST(Planner, RefusesNoLayersAndNoNodes) {
  EXPECT_EQ(MakePlan(Input(0, {Node(1)})).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MakePlan(Input(1, {})).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Planner, PlansAThousandNodesQuickly) {
  Random random(1);
  PlannerInput input;
  input.layers = Layers(126, 1'700'000'000);
  input.rules.kv_tokens_least = 8192;
  input.rules.kv_tokens_wanted = 1000 * 2048;
  input.rules.streams = 1000;
  input.rules.row_bytes = 65536;
  for (uint64_t i = 1; i <= 1000; ++i) {
    input.nodes.push_back(Node(i, 0.5 + 0.01 * static_cast<double>(random.Below(400)),
                               (8000 + random.Below(56000)) * kMiB));
    AddLink(input, 0, i, i % 3 == 0 ? 20 : 0.5, i % 3 == 0 ? 1e7 : 1e8);
  }
  const absl::Time start = absl::Now();
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok()) << report.status();
  ExpectWhole(report->plan, 126);
  RecordProperty("millis", static_cast<int>(absl::ToInt64Milliseconds(absl::Now() - start)));
  printf("%zu chains, %.1f tokens/s, %s\n", report->plan.chains.size(),
         report->plan.prediction.tokens_per_second,
         absl::FormatDuration(absl::Now() - start).c_str());
}

}  // namespace
}  // namespace efedllm
