#include "simulator/sim_plan.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/units.h"
#include "simulator/sim_network.h"
#include "simulator/stage_cost.h"

namespace efedllm {
namespace {

constexpr uint64_t kKvPage = 64;
// Up to so many nodes all of their links are told. Beyond, those to the coordinator and those that
// the file describes: from these the planner guesses the others.
constexpr size_t kAllLinks = 128;
constexpr std::array<uint32_t, 9> kMeasuredRows = {1, 2, 4, 8, 16, 32, 64, 128, 256};

uint64_t Pages(uint64_t positions) { return (positions + kKvPage - 1) / kKvPage * kKvPage; }

NodeId IdOf(const SimSpec& spec, size_t index) {
  return NodeId{index == spec.nodes.size() ? 0 : index + 1};
}

// What running stages would have been measured to take, against what the profile says.
std::vector<SpeedFactor> Measured(const SimSpec& spec, const SimNode& node,
                                  const LayerSums& layers) {
  const uint32_t all = layers.layers();
  const StageCost cost = StageCost::OfLayers(spec.model, node, all);
  std::vector<SpeedFactor> factors;
  for (const uint32_t rows : kMeasuredRows) {
    if (rows > spec.rules.max_step_tokens) break;
    StepWork work;
    work.rows = rows;
    factors.push_back({static_cast<double>(rows),
                       cost.LayerSeconds(work) / layers.Seconds(node.profile, {0, all}, rows)});
  }
  return factors;
}

std::vector<LinkSpeed> Links(const SimSpec& spec) {
  const SimNetwork network(spec);
  const size_t coordinator = spec.nodes.size();
  std::vector<LinkSpeed> links;
  const auto add = [&](size_t from, size_t to) {
    const SimLink path = network.Path(from, to);
    links.push_back({IdOf(spec, from), IdOf(spec, to),
                     absl::Seconds(2 * path.delay_seconds + path.jitter_seconds),
                     path.bytes_per_second, network.Reachable(from, to)});
  };
  for (size_t i = 0; i < coordinator; ++i) {
    add(i, coordinator);
    add(coordinator, i);
    for (size_t j = 0; coordinator <= kAllLinks && j < coordinator; ++j) {
      if (i != j) add(i, j);
    }
  }
  if (coordinator <= kAllLinks) return links;
  for (const SimPair& pair : spec.pairs) add(pair.from, pair.to);
  return links;
}

absl::StatusOr<PlanReport> PlanByHand(const SimSpec& spec, const PlannerInput& input) {
  const LayerSums sums(input.layers);
  const std::vector<uint32_t>& stage_layers = spec.rules.stage_layers;
  uint32_t first = 0;
  const SimNetwork network(spec);
  PlanReport report;
  Chain& chain = report.plan.chains.emplace_back();
  chain.kv_tokens = input.rules.kv_tokens_wanted;
  for (size_t i = 0; i < stage_layers.size(); ++i) {
    const LayerRange layers{first, first + stage_layers[i]};
    first = layers.last;
    chain.stages.push_back(
        {IdOf(spec, i), layers, i + 1 < stage_layers.size() && !network.Reachable(i, i + 1)});
    const uint64_t needed = sums.WeightBytes(layers) + input.rules.overhead_bytes;
    const uint64_t memory = spec.nodes[i].profile.memory_bytes;
    const uint64_t free = memory > needed ? memory - needed : 0;
    const uint64_t page = std::max<uint64_t>(
        kKvPage * input.layers[layers.first].kv_bytes_per_token * layers.size(), 1);
    chain.kv_tokens = std::min(chain.kv_tokens, free / page * kKvPage);
    if (chain.kv_tokens < input.rules.kv_tokens_least) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the model does not fit: ", spec.nodes[i].name, " has ", FormatBytes(memory),
                       ", and ", layers.size(), " layers need ",
                       FormatBytes(needed + input.rules.kv_tokens_least / kKvPage * page),
                       " with KV for one sequence"));
    }
  }
  return report;
}

}  // namespace

PlannerInput SimPlannerInput(const SimSpec& spec) {
  PlannerInput input;
  input.layers = SimLayerCosts(spec.model);
  const LayerSums sums(input.layers);
  for (size_t i = 0; i < spec.nodes.size(); ++i) {
    const SimNode& node = spec.nodes[i];
    input.nodes.push_back({IdOf(spec, i), node.name, node.profile, Measured(spec, node, sums)});
  }
  input.links = Links(spec);
  PlannerRules& rules = input.rules;
  rules.kv_tokens_least = Pages(spec.rules.context);
  rules.kv_tokens_wanted = rules.kv_tokens_least * spec.rules.max_sequences;
  rules.layout = spec.rules.layout;
  rules.streams = spec.load.streams;
  rules.row_bytes = spec.model.d_model * spec.rules.bytes_per_value;
  rules.head = {SimHeadCost(spec.model), spec.coordinator.profile};
  return input;
}

absl::StatusOr<PlanReport> PlanSimulation(const SimSpec& spec) {
  const PlannerInput input = SimPlannerInput(spec);
  return spec.rules.stage_layers.empty() ? MakePlan(input) : PlanByHand(spec, input);
}

}  // namespace efedllm
