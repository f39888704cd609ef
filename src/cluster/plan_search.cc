#include "cluster/plan_search.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cluster/chain_order.h"

namespace efedllm {
namespace {

constexpr double kPromptRows = 64;
constexpr double kOrderRows = 4;  // of the frames whose way is to be the shortest
// A node more, or another order, must gain so much.
constexpr double kWorthwhile = 1.01;
// As good as the best, where it saves moving weights.
constexpr double kNearlyBest = 1.05;
constexpr size_t kMostSubsets = 8;    // nodes of which every subset is tried
constexpr size_t kMostThorough = 16;  // nodes for which the exact partition is cheap
constexpr size_t kNowhere = std::numeric_limits<size_t>::max();

// 1, 2, 3, 4, 6, 8, 11, ... up to most, and most.
std::vector<size_t> Sizes(size_t most) {
  std::vector<size_t> sizes;
  for (size_t size = 1; size < most; size = std::max(size + 1, size * 4 / 3)) sizes.push_back(size);
  sizes.push_back(most);
  return sizes;
}

}  // namespace

PlanSearch::PlanSearch(const PlannerInput& input)
    : input_(input),
      layers_(input.layers),
      network_(input.nodes, input.links),
      coarse_(network_.Coarse()),
      model_(layers_, input.nodes, network_, input.rules.head, input.rules.row_bytes),
      coarse_model_(layers_, input.nodes, coarse_, input.rules.head, input.rules.row_bytes),
      present_(input.nodes.size()),
      present_positions_(input.nodes.size(), kNowhere) {
  for (size_t i = 0; i < input.nodes.size(); ++i) numbers_[input.nodes[i].node] = i;
  size_t position = 0;
  for (const Stage& stage : input.present.AllStages()) {
    const auto number = numbers_.find(stage.node);
    if (number == numbers_.end() || stage.layers.last > layers_.layers()) continue;
    present_[number->second] = stage.layers;
    present_positions_[number->second] = position++;
  }
}

const std::string& PlanSearch::Name(NodeId node) const {
  return input_.nodes[numbers_.at(node)].name;
}

PartitionRules PlanSearch::RulesFor(size_t nodes) const {
  PartitionRules rules;
  rules.kv_tokens_wanted = input_.rules.kv_tokens_wanted;
  rules.kv_tokens_least = input_.rules.kv_tokens_least;
  rules.overhead_bytes = input_.rules.overhead_bytes;
  rules.every_node = input_.rules.layout == Layout::kChain && nodes == input_.nodes.size();
  const double decode_rows = std::max(1.0, static_cast<double>(input_.rules.streams) /
                                               static_cast<double>(std::max<size_t>(nodes, 1)));
  rules.loads = {{decode_rows, kGeneratedTokens / decode_rows},
                 {kPromptRows, kPromptTokens / kPromptRows}};
  return rules;
}

std::optional<ChainShape> PlanSearch::Shape(const Nodes& order, bool thorough) const {
  std::vector<const PlannerNode*> nodes;
  for (const size_t node : order) nodes.push_back(&input_.nodes[node]);
  const PartitionRules rules = RulesFor(order.size());
  const LayerPartitioner partitioner(layers_, std::move(nodes), rules);
  const std::optional<LayerPartition> partition =
      thorough ? partitioner.Best() : partitioner.Quick();
  if (!partition) return std::nullopt;
  ChainShape chain;
  chain.kv_tokens = partition->kv_tokens;
  for (size_t i = 0; i < order.size(); ++i) {
    if (partition->ranges[i].size() == 0) continue;
    chain.nodes.push_back(order[i]);
    chain.ranges.push_back(partition->ranges[i]);
  }
  return chain;
}

PlanCandidate PlanSearch::Weigh(std::vector<ChainShape> chains) const {
  PlanCandidate candidate;
  candidate.chains = std::move(chains);
  const std::vector<size_t> dealt = model_.Deal(candidate.chains, input_.rules.streams);
  double prompt_rate = 0;
  double& decode_rate = candidate.far_tokens_per_second;
  for (size_t i = 0; i < candidate.chains.size(); ++i) {
    const ChainShape& chain = candidate.chains[i];
    // No more at once than there is KV for.
    const double most =
        std::max(1.0, static_cast<double>(chain.kv_tokens) / (kPromptTokens + kGeneratedTokens));
    const auto streams = static_cast<size_t>(std::min(static_cast<double>(dealt[i]), most));
    const PlanPrediction one = model_.Predict(chain, streams);
    PlanPrediction& all = candidate.prediction;
    if (streams > 0) {
      all.tokens_per_second += one.tokens_per_second;
      decode_rate +=
          static_cast<double>(streams) / coarse_model_.Decode(chain, streams).round_seconds;
    }
    all.single_tokens_per_second =
        std::max(all.single_tokens_per_second, one.single_tokens_per_second);
    all.prompt_tokens_per_second =
        std::max(all.prompt_tokens_per_second, one.prompt_tokens_per_second);
    prompt_rate += model_.PromptRate(chain);
  }
  candidate.request_seconds = kPromptTokens / prompt_rate + kGeneratedTokens / decode_rate;
  return candidate;
}

PlanSearch::Nodes PlanSearch::Order(const Nodes& nodes) const {
  Nodes ends;
  for (const size_t node : nodes) ends.push_back(node + 1);
  std::sort(ends.begin(), ends.end());
  Nodes order = ChainOrder(network_, ends, kOrderRows * input_.rules.row_bytes);
  for (size_t& node : order) --node;
  return order;
}

std::optional<PlanCandidate> PlanSearch::Try(const Nodes& nodes) const {
  std::optional<ChainShape> chain = Shape(Order(nodes), nodes.size() <= kMostThorough);
  if (!chain) return std::nullopt;
  return Weigh({*std::move(chain)});
}

// How much of a request it computes in a second.
double PlanSearch::Power(size_t node) const {
  const LayerRange all{0, layers_.layers()};
  double seconds = 0;
  for (const RowLoad& load : RulesFor(1).loads) {
    seconds += load.weight * layers_.Seconds(input_.nodes[node], all, load.rows);
  }
  return 1 / seconds;
}

// Orders in which many nodes are taken until there are enough.
std::vector<PlanSearch::Nodes> PlanSearch::Preferences() const {
  const size_t count = input_.nodes.size();
  std::vector<double> power(count), distance(count);
  Nodes all(count);
  std::iota(all.begin(), all.end(), size_t{0});
  for (const size_t i : all) {
    power[i] = Power(i);
    const double bytes = kOrderRows * input_.rules.row_bytes;
    distance[i] = network_.HopSeconds(0, i + 1, bytes) + network_.HopSeconds(i + 1, 0, bytes);
  }
  const auto by = [&](auto&& key) {
    Nodes order = all;
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return key(a) > key(b); });
    return order;
  };
  std::vector<Nodes> preferences;
  preferences.push_back(by([&](size_t i) { return power[i]; }));
  // Near ones first, by milliseconds; then the fast ones among them.
  preferences.push_back(
      by([&](size_t i) { return std::pair(-std::lround(distance[i] * 1e3), power[i]); }));
  // A request's time on the node, and what its hops add for a typical request.
  preferences.push_back(
      by([&](size_t i) { return -(1 / power[i] + kGeneratedTokens * distance[i] / 2); }));
  return preferences;
}

std::optional<PlanCandidate> PlanSearch::BestSingle() const {
  std::optional<PlanCandidate> best;
  for (size_t i = 0; i < input_.nodes.size(); ++i) {
    const std::optional<PlanCandidate> one = Try({i});
    if (one && (!best || one->prediction.tokens_per_second > best->prediction.tokens_per_second)) {
      best = one;
    }
  }
  return best;
}

std::optional<PlanCandidate> PlanSearch::BestChain(size_t least_stages) const {
  const size_t count = input_.nodes.size();
  std::optional<PlanCandidate> best;
  // Candidates come by ascending size: a larger one must be worth it.
  const auto consider = [&](const Nodes& nodes) {
    if (nodes.size() < least_stages) return;
    std::optional<PlanCandidate> candidate = Try(nodes);
    if (!candidate || candidate->chains[0].nodes.size() < least_stages) return;
    const bool larger = best && nodes.size() > best->chains[0].nodes.size();
    const double worth = larger ? kWorthwhile : 1;
    if (!best || candidate->request_seconds * worth < best->request_seconds) {
      best = std::move(candidate);
    }
  };
  if (input_.rules.layout == Layout::kChain) {
    Nodes all(count);
    std::iota(all.begin(), all.end(), size_t{0});
    consider(all);
    if (best) return best;
  }
  if (count <= kMostSubsets) {
    std::vector<size_t> sets((size_t{1} << count) - 1);
    std::iota(sets.begin(), sets.end(), size_t{1});
    std::stable_sort(sets.begin(), sets.end(), [](size_t a, size_t b) {
      return __builtin_popcountll(a) < __builtin_popcountll(b);
    });
    for (const size_t set : sets) {
      Nodes nodes;
      for (size_t i = 0; i < count; ++i) {
        if ((set >> i & 1) != 0) nodes.push_back(i);
      }
      consider(nodes);
    }
    return best;
  }
  const std::vector<Nodes> preferences = Preferences();
  for (const size_t size : Sizes(std::min<size_t>(count, layers_.layers()))) {
    for (const Nodes& order : preferences) {
      consider(Nodes(order.begin(), order.begin() + static_cast<ptrdiff_t>(size)));
    }
  }
  if (!best && count > layers_.layers()) consider(preferences[0]);  // memory needs more nodes
  return best;
}

std::optional<PlanCandidate> PlanSearch::TryGroups(const std::vector<Nodes>& groups) const {
  std::vector<ChainShape> chains;
  Nodes carried;  // groups that were too small for the model
  for (const Nodes& group : groups) {
    carried.insert(carried.end(), group.begin(), group.end());
    std::optional<ChainShape> chain = Shape(carried, carried.size() <= 2);
    if (!chain) continue;
    chains.push_back(*std::move(chain));
    carried.clear();
  }
  if (chains.size() < 2) return std::nullopt;
  // A chain without a sequence is idle: the fastest ones stay.
  const size_t most = std::max<size_t>(input_.rules.streams, 1);
  if (chains.size() > most) {
    std::stable_sort(chains.begin(), chains.end(), [&](const ChainShape& a, const ChainShape& b) {
      return model_.Pass(a, 1) < model_.Pass(b, 1);
    });
    chains.resize(most);
  }
  return Weigh(std::move(chains));
}

std::optional<PlanCandidate> PlanSearch::BestReplicas() const {
  const size_t count = input_.nodes.size();
  Nodes all(count);
  std::iota(all.begin(), all.end(), size_t{0});
  const Nodes near = Order(all);
  std::optional<PlanCandidate> best;
  for (const size_t size : Sizes(std::min<size_t>((count + 1) / 2, layers_.layers()))) {
    std::vector<Nodes> groups;
    for (size_t begin = 0; begin < count; begin += size) {
      const size_t end = std::min(begin + size, count);
      groups.emplace_back(near.begin() + static_cast<ptrdiff_t>(begin),
                          near.begin() + static_cast<ptrdiff_t>(end));
    }
    std::optional<PlanCandidate> candidate = TryGroups(groups);
    if (candidate && (!best || candidate->prediction.tokens_per_second >
                                   kWorthwhile * best->prediction.tokens_per_second)) {
      best = std::move(candidate);
    }
  }
  return best;
}

PlanSearch::Nodes PlanSearch::PresentOrder(const Nodes& nodes) const {
  Nodes order, added;
  for (const size_t node : nodes) {
    (present_positions_[node] != kNowhere ? order : added).push_back(node);
  }
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return present_positions_[a] < present_positions_[b]; });
  const double bytes = kOrderRows * input_.rules.row_bytes;
  for (const size_t node : added) {
    size_t best = order.size();
    double least = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i <= order.size(); ++i) {
      const size_t from = i == 0 ? 0 : order[i - 1] + 1;
      const size_t to = i == order.size() ? 0 : order[i] + 1;
      const double more = network_.HopSeconds(from, node + 1, bytes) +
                          network_.HopSeconds(node + 1, to, bytes) -
                          (from == to ? 0 : network_.HopSeconds(from, to, bytes));
      if (more < least) {
        least = more;
        best = i;
      }
    }
    order.insert(order.begin() + static_cast<ptrdiff_t>(best), node);
  }
  return order;
}

ChainShape PlanSearch::SettleChain(const ChainShape& chain) const {
  const bool known = std::any_of(chain.nodes.begin(), chain.nodes.end(),
                                 [&](size_t node) { return present_positions_[node] != kNowhere; });
  Nodes order = Order(chain.nodes);
  if (known) {
    const Nodes present = PresentOrder(chain.nodes);
    const std::optional<ChainShape> kept = Shape(present, false);
    if (kept && Weigh({*kept}).request_seconds <= kNearlyBest * Weigh({chain}).request_seconds &&
        model_.Pass(*kept, 1) <= kNearlyBest * model_.Pass(chain, 1)) {
      order = present;
    }
  }
  std::vector<const PlannerNode*> nodes;
  std::vector<LayerRange> holds;
  for (const size_t node : order) {
    nodes.push_back(&input_.nodes[node]);
    holds.push_back(present_[node]);
  }
  const PartitionRules rules = RulesFor(order.size());
  const LayerPartitioner partitioner(layers_, std::move(nodes), rules);
  const std::optional<LayerPartition> partition =
      known ? partitioner.Nearest(holds, kNearlyBest) : partitioner.Best();
  if (!partition) return chain;  // it fits in another order only
  ChainShape settled;
  settled.kv_tokens = partition->kv_tokens;
  for (size_t i = 0; i < order.size(); ++i) {
    if (partition->ranges[i].size() == 0) continue;
    settled.nodes.push_back(order[i]);
    settled.ranges.push_back(partition->ranges[i]);
  }
  return settled;
}

PlanCandidate PlanSearch::Settle(const PlanCandidate& candidate) const {
  std::vector<ChainShape> chains;
  for (const ChainShape& chain : candidate.chains) chains.push_back(SettleChain(chain));
  return Weigh(std::move(chains));
}

StagePlan PlanSearch::ToPlan(const PlanCandidate& candidate) const {
  StagePlan plan;
  plan.prediction = candidate.prediction;
  for (const ChainShape& shape : candidate.chains) {
    Chain& chain = plan.chains.emplace_back();
    chain.kv_tokens = shape.kv_tokens;
    for (size_t i = 0; i < shape.nodes.size(); ++i) {
      const bool last = i + 1 == shape.nodes.size();
      const bool relayed = !last && !network_.Direct(shape.nodes[i] + 1, shape.nodes[i + 1] + 1);
      chain.stages.push_back({input_.nodes[shape.nodes[i]].node, shape.ranges[i], relayed});
    }
  }
  return plan;
}

std::optional<PlanCandidate> PlanSearch::FromPlan(const StagePlan& plan) const {
  std::vector<ChainShape> chains;
  for (const Chain& chain : plan.chains) {
    ChainShape& shape = chains.emplace_back();
    shape.kv_tokens = chain.kv_tokens;
    for (const Stage& stage : chain.stages) {
      const auto number = numbers_.find(stage.node);
      if (number == numbers_.end() || stage.layers.last > layers_.layers()) return std::nullopt;
      shape.nodes.push_back(number->second);
      shape.ranges.push_back(stage.layers);
    }
  }
  if (chains.empty()) return std::nullopt;
  return Weigh(std::move(chains));
}

double PlanSearch::HopSeconds(const PlanCandidate& candidate) const {
  Nodes ends;
  for (const size_t node : candidate.chains[0].nodes) ends.push_back(node + 1);
  return TourSeconds(network_, ends, input_.rules.row_bytes);
}

std::string PlanSearch::WhyStandby(const PlanCandidate& chosen, size_t node) const {
  const uint64_t memory = input_.nodes[node].profile.memory_bytes;
  const uint64_t kv = input_.rules.kv_tokens_least;
  if (memory < input_.rules.overhead_bytes + layers_.Bytes({0, 1}, kv)) {
    return "its memory holds no layer";
  }
  const ChainShape& chain = chosen.chains.back();
  if (chain.nodes.size() >= layers_.layers()) return "every layer has a node of its own";
  Nodes nodes = chain.nodes;
  nodes.push_back(node);
  const std::optional<ChainShape> with = Shape(Order(nodes), nodes.size() <= kMostThorough);
  if (!with) return "the model does not fit in an order with it";
  if (std::find(with->nodes.begin(), with->nodes.end(), node) == with->nodes.end()) {
    return "a single layer takes it longer than the others their stages";
  }
  std::vector<ChainShape> chains = chosen.chains;
  chains.back() = *with;
  const PlanPrediction after = Weigh(std::move(chains)).prediction;
  const PlanPrediction& now = chosen.prediction;
  return absl::StrFormat(
      "with it the plan would give %.1f tokens/s for one stream, %.1f for %d and %.0f for prompts "
      "instead of %.1f, %.1f and %.0f",
      after.single_tokens_per_second, after.tokens_per_second, input_.rules.streams,
      after.prompt_tokens_per_second, now.single_tokens_per_second, now.tokens_per_second,
      now.prompt_tokens_per_second);
}

}  // namespace efedllm
