#include "simulator/simulation.h"

#include <gtest/gtest.h>

#include "sim_world.h"
#include "simulator/sim_report.h"

namespace efedllm {
namespace {

constexpr double kExact = 1e-6;  // seconds; what takes "no time" takes less

SimResult Simulated(const SimSpec& spec) {
  absl::StatusOr<SimResult> result = Simulate(spec);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : SimResult();
}

TEST(Simulation, OneStreamPaysEveryStageAndEveryHopInTurn) {
  const SimResult result = Simulated(TwoStages());
  ASSERT_EQ(result.stages.size(), 2u);
  // 1 ms there, 5 ms, 2 ms between two nodes, 5 ms, 1 ms back, 1 ms for the head.
  EXPECT_NEAR(result.first_token_seconds.median, 0.015, kExact);
  EXPECT_NEAR(result.inter_token_seconds.median, 0.015, kExact);
  EXPECT_NEAR(result.inter_token_seconds.most, 0.015, kExact);
  EXPECT_NEAR(result.seconds, 0.045, kExact);
  EXPECT_NEAR(result.tokens_per_second, 1 / 0.015, 0.01);
  EXPECT_NEAR(result.stages[0].busy, 5.0 / 15, 1e-4);
  EXPECT_NEAR(result.head_busy, 1.0 / 15, 1e-4);
  EXPECT_EQ(result.steps, 3u);
}

TEST(Simulation, ASecondStreamUsesTheStagesThatTheFirstLeavesIdle) {
  SimSpec spec = TwoStages();
  spec.load.streams = spec.load.requests = 2;
  const SimResult result = Simulated(spec);
  // The first as before; the second is 5 ms behind it at every place.
  EXPECT_NEAR(result.first_token_seconds.median, 0.015, kExact);
  EXPECT_NEAR(result.first_token_seconds.most, 0.020, kExact);
  EXPECT_NEAR(result.inter_token_seconds.most, 0.015, kExact);
  EXPECT_NEAR(result.seconds, 0.050, kExact);
  EXPECT_EQ(result.most_running, 2u);
}

TEST(Simulation, BytesTakeTheTimeOfTheSlowestPartOfTheirPath) {
  SimSpec spec = TwoStages();
  const double plain = Simulated(spec).inter_token_seconds.median;
  // A frame has 48 bytes, 10 a sequence, 24 a stage behind it, and a row of 4096; 6.5 % of headers.
  spec.nodes[0].access.bytes_per_second = 1e6;
  const double slow = Simulated(spec).inter_token_seconds.median;
  EXPECT_NEAR(slow - plain, 1.065 * (4154 + 4178) / 1e6, kExact);
}

TEST(Simulation, EveryLinkCarriesEveryRow) {
  SimSpec spec = TwoStages();
  spec.load = {.streams = 5,
               .requests = 12,
               .prompt_tokens = {3, 40},
               .output_tokens = {1, 9},
               .arrivals_per_second = 0};
  const SimResult result = Simulated(spec);
  EXPECT_EQ(result.requests, 12u);
  EXPECT_GE(result.output_tokens, 12u);
  ASSERT_EQ(result.links.size(), 3u);
  // The last token of a request is never computed.
  const double rows = static_cast<double>(result.prompt_tokens + result.output_tokens - 12);
  EXPECT_NEAR(result.rows_per_step * static_cast<double>(result.steps), rows, 1e-6);
  double sum = 0;
  for (const LinkUse& link : result.links) {
    EXPECT_EQ(link.messages, result.steps);
    const double headers = link.bytes - rows * 4096;
    EXPECT_GE(headers, 58.0 * static_cast<double>(result.steps));
    EXPECT_LE(headers, (58.0 + 48 + 40) * static_cast<double>(result.steps));
    sum += link.bytes;
  }
  EXPECT_DOUBLE_EQ(result.bytes, sum);
  EXPECT_NEAR(result.bytes_per_token,
              sum / static_cast<double>(result.prompt_tokens + result.output_tokens), 1e-6);
}

TEST(Simulation, NodesOfOneHostShareItsCores) {
  SimSpec spec = TwoStages();
  spec.load = {.streams = 8,
               .requests = 8,
               .prompt_tokens = {1, 1},
               .output_tokens = {50, 50},
               .arrivals_per_second = 0};
  const SimResult apart = Simulated(spec);
  spec.hosts = {{"box", 1}};
  for (SimNode& node : spec.nodes) node.host = 0;
  const SimResult together = Simulated(spec);
  EXPECT_LE(together.stages[0].busy + together.stages[1].busy, 1.02);
  EXPECT_GT(together.stages[0].busy + together.stages[1].busy, 0.98);
  EXPECT_GT(apart.stages[0].busy, 0.9);
  // Not twice: who waits for the core gathers rows, and larger steps cost less a row.
  EXPECT_GT(apart.tokens_per_second, 1.3 * together.tokens_per_second);
}

TEST(Simulation, NodesOfOneMediumShareTheAir) {
  SimSpec spec = TwoStages();
  const double plain = Simulated(spec).inter_token_seconds.median;
  spec.media = {{"hall", 1e6}};
  for (SimNode& node : spec.nodes) node.medium = 0;
  const double air = Simulated(spec).inter_token_seconds.median;
  // Once into the first, twice between both, once out of the second.
  EXPECT_NEAR(air - plain, 1.065 * (4154 + 2 * 4178 + 4202) / 1e6, kExact);
}

TEST(Simulation, TheCoordinatorRelaysBetweenNodesThatCannotReachEachOther) {
  SimSpec spec = TwoStages();
  for (const auto& [from, to] : {std::pair<size_t, size_t>{0, 1}, {1, 0}}) {
    spec.pairs.push_back({from, to, {0.002, 0, 1e15}, false});
  }
  const SimResult result = Simulated(spec);
  ASSERT_EQ(result.links.size(), 4u);  // to and from each of the two
  for (const LinkUse& link : result.links) EXPECT_TRUE(link.from == 2 || link.to == 2);
  EXPECT_NEAR(result.inter_token_seconds.median, 0.015, kExact);  // 1 ms and 1 ms instead of 2
}

TEST(Simulation, IsTheSameForTheSameSeed) {
  SimSpec spec = TwoStages();
  spec.load = {.streams = 6,
               .requests = 20,
               .prompt_tokens = {5, 90},
               .output_tokens = {3, 30},
               .arrivals_per_second = 8};
  for (SimNode& node : spec.nodes) node.access.jitter_seconds = 0.004;
  const std::string first = SimResultJson(spec, Simulated(spec)).dump();
  EXPECT_EQ(SimResultJson(spec, Simulated(spec)).dump(), first);
  spec.seed = 2;
  EXPECT_NE(SimResultJson(spec, Simulated(spec)).dump(), first);
}

TEST(Simulation, FasterNodesAndLinksAreNeverSlower) {
  SimSpec spec = TwoStages();
  spec.load = {.streams = 4,
               .requests = 8,
               .prompt_tokens = {20, 20},
               .output_tokens = {40, 40},
               .arrivals_per_second = 0};
  double last = 0;
  for (const double faster : {1.0, 1.5, 2.0, 4.0, 8.0}) {
    SimSpec quick = spec;
    for (SimNode& node : quick.nodes) {
      for (MeasuredTime& time : node.times) time.seconds /= faster;
    }
    const double rate = Simulated(quick).overall_tokens_per_second;
    EXPECT_GT(rate, last) << faster;
    last = rate;
  }
  last = 0;
  for (const double delay : {0.1, 0.03, 0.01, 0.001, 0.0}) {
    SimSpec near = spec;
    for (SimNode& node : near.nodes) node.access.delay_seconds = delay;
    const double rate = Simulated(near).overall_tokens_per_second;
    EXPECT_GE(rate, last) << delay;
    last = rate;
  }
}

TEST(Simulation, MoreStreamsKeepStagesBusierUntilTheyAreFull) {
  SimSpec spec = TwoStages();
  spec.load.output_tokens = {60, 60};
  double last = 0;
  for (const uint32_t streams : {1u, 2u, 4u}) {
    spec.load.streams = spec.load.requests = streams;
    const SimResult result = Simulated(spec);
    EXPECT_GT(result.tokens_per_second, last);
    EXPECT_LE(result.stages[0].busy, 1.0);
    last = result.tokens_per_second;
  }
  EXPECT_GT(last, 190);  // a row every 5 ms are 200, and steps of two rows a little more
}

TEST(Simulation, SequencesMakeRoomWhenKvRunsOut) {
  SimSpec spec = TwoStages();
  spec.load = {.streams = 20,
               .requests = 20,
               .prompt_tokens = {30, 30},
               .output_tokens = {90, 90},
               .arrivals_per_second = 0};
  spec.rules.context = 128;
  for (SimNode& node : spec.nodes) node.profile.memory_bytes = uint64_t{100} << 20;
  const SimResult roomy = Simulated(spec);
  EXPECT_EQ(roomy.most_running, 16u);  // max_sequences
  EXPECT_EQ(roomy.preemptions, 0u);
  // 4 KiB of KV a token and layer: a page of 64 positions has 256 KiB.
  for (SimNode& node : spec.nodes) {
    node.profile.memory_bytes = (uint64_t{64} << 20) + 17825792 + 7 * (uint64_t{256} << 10);
  }
  const SimResult tight = Simulated(spec);
  EXPECT_EQ(tight.requests, 20u);
  EXPECT_LE(tight.most_running, 4u);  // a page, and one more that each may need
  EXPECT_EQ(tight.output_tokens, roomy.output_tokens);
  EXPECT_LT(tight.tokens_per_second, roomy.tokens_per_second);
}

TEST(Simulation, SaysWhatThePlannerSaysWhereTheModelDoesNotFit) {
  SimSpec spec = TwoStages();
  spec.nodes.pop_back();
  const absl::Status status = Simulate(spec).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(status.message()).find("does not fit"), std::string::npos);
}

TEST(Simulation, ALayoutOfItsOwnTakesNodesInOrder) {
  SimSpec spec = TwoStages();
  spec.model.layers = 7;
  spec.rules.stage_layers = {1, 2, 2, 2};
  for (int i = 0; i < 2; ++i) spec.nodes.push_back(spec.nodes[0]);
  for (SimNode& node : spec.nodes) node.profile.memory_bytes = uint64_t{1} << 30;
  const SimResult result = Simulated(spec);
  ASSERT_EQ(result.stages.size(), 4u);
  EXPECT_EQ(result.stages[0].layers, (LayerRange{0, 1}));
  EXPECT_EQ(result.stages[3].layers, (LayerRange{5, 7}));
  EXPECT_EQ(result.stages[3].node, 3u);
  spec.nodes[2].profile.memory_bytes = uint64_t{80} << 20;
  EXPECT_EQ(Simulate(spec).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(Simulation, ReportsArePrintable) {
  const SimSpec spec = TwoStages();
  const SimResult result = Simulated(spec);
  EXPECT_NE(SimResultText(spec, result).find("tokens/s"), std::string::npos);
  const std::string svg = SimResultSvg(spec, result);
  EXPECT_EQ(svg.substr(0, 4), "<svg");
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
}

}  // namespace
}  // namespace efedllm
