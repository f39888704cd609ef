#include "cluster/planner.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/units.h"

namespace efedllm {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
// A rate that was not measured counts as this: far below any machine, and no division by zero.
constexpr double kLeastRate = 1e6;

uint64_t SaturatingAdd(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }
uint64_t SaturatingMultiply(uint64_t a, uint64_t b) {
  return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

// What layers [first, last) cost on a node, in O(1).
class Costs {
 public:
  Costs(const std::vector<LayerCost>& layers, const PlannerRules& rules) : rules_(rules) {
    sums_.resize(layers.size() + 1);
    for (size_t i = 0; i < layers.size(); ++i) {
      const LayerCost& layer = layers[i];
      sums_[i + 1].weight_bytes = SaturatingAdd(sums_[i].weight_bytes, layer.weight_bytes);
      sums_[i + 1].kv_bytes_per_token =
          SaturatingAdd(sums_[i].kv_bytes_per_token, layer.kv_bytes_per_token);
      // Two bytes a parameter or more are floats; less is quantized and multiplied as int8.
      const bool quantized = layer.weight_bytes < layer.flops_per_token;
      const auto flops = static_cast<double>(layer.flops_per_token);
      sums_[i + 1].int8_ops = sums_[i].int8_ops + (quantized ? flops : 0);
      sums_[i + 1].f32_flops = sums_[i].f32_flops + (quantized ? 0 : flops);
    }
  }

  size_t layers() const { return sums_.size() - 1; }

  uint64_t WeightBytes(size_t first, size_t last) const {
    return sums_[last].weight_bytes - sums_[first].weight_bytes;
  }
  uint64_t KvBytesPerToken(size_t first, size_t last) const {
    return sums_[last].kv_bytes_per_token - sums_[first].kv_bytes_per_token;
  }
  uint64_t Bytes(size_t first, size_t last, uint64_t kv_tokens) const {
    return SaturatingAdd(WeightBytes(first, last),
                         SaturatingMultiply(KvBytesPerToken(first, last), kv_tokens));
  }

  // What the node has for weights and KV.
  uint64_t Room(const PlannerNode& node) const {
    const uint64_t memory = node.profile.memory_bytes;
    return memory > rules_.overhead_bytes ? memory - rules_.overhead_bytes : 0;
  }

  double Seconds(const PlannerNode& node, size_t first, size_t last) const {
    const NodeProfile& profile = node.profile;
    const double read = static_cast<double>(WeightBytes(first, last)) /
                        std::max(profile.read_bytes_per_second, kLeastRate);
    const double compute = (sums_[last].int8_ops - sums_[first].int8_ops) /
                               std::max(profile.int8_ops_per_second, kLeastRate) +
                           (sums_[last].f32_flops - sums_[first].f32_flops) /
                               std::max(profile.f32_flops_per_second, kLeastRate);
    return std::max(read, compute);
  }

 private:
  struct Sum {
    uint64_t weight_bytes = 0;
    uint64_t kv_bytes_per_token = 0;
    double int8_ops = 0;
    double f32_flops = 0;
  };

  const PlannerRules& rules_;
  std::vector<Sum> sums_;  // of layers [0, i)
};

// Layers that fit when every node takes as many as it can. No order-keeping partition holds more.
size_t LayersThatFit(const Costs& costs, const std::vector<PlannerNode>& nodes,
                     uint64_t kv_tokens) {
  size_t placed = 0;
  for (const PlannerNode& node : nodes) {
    const size_t first = placed;
    while (placed < costs.layers() &&
           costs.Bytes(first, placed + 1, kv_tokens) <= costs.Room(node)) {
      ++placed;
    }
  }
  return placed;
}

// The most KV room in [least, wanted] with which all layers fit; they do with `least`.
uint64_t MostKvTokens(const Costs& costs, const std::vector<PlannerNode>& nodes, uint64_t least,
                      uint64_t wanted) {
  uint64_t fits = least;
  uint64_t fails = wanted + 1;
  while (fails - fits > 1) {
    const uint64_t middle = fits + (fails - fits) / 2;
    (LayersThatFit(costs, nodes, middle) == costs.layers() ? fits : fails) = middle;
  }
  return fits;
}

// The dynamic programme's table: rows are nodes used so far, columns are layers placed so far.
template <class T>
using Table = std::vector<std::vector<T>>;

// The least time that the slowest stage can have.
double LeastBottleneck(const Costs& costs, const std::vector<PlannerNode>& nodes,
                       uint64_t kv_tokens) {
  std::vector<double> best(costs.layers() + 1, kNever);
  best[0] = 0;
  for (const PlannerNode& node : nodes) {
    std::vector<double> next = best;  // the node gets nothing
    for (size_t last = 1; last <= costs.layers(); ++last) {
      for (size_t first = last; first-- > 0;) {
        if (costs.Bytes(first, last, kv_tokens) > costs.Room(node)) break;
        next[last] = std::min(next[last], std::max(best[first], costs.Seconds(node, first, last)));
      }
    }
    best = std::move(next);
  }
  return best.back();
}

// Among the partitions without a stage slower than the bottleneck, one of the fewest stages, and of
// those one of the least total time: a node that does not help gets no layers.
std::vector<Stage> FewestStages(const Costs& costs, const std::vector<PlannerNode>& nodes,
                                uint64_t kv_tokens, double bottleneck) {
  using Score = std::pair<size_t, double>;  // stages, seconds
  constexpr Score kNone{std::numeric_limits<size_t>::max(), kNever};
  const size_t layers = costs.layers();
  std::vector<Score> best(layers + 1, kNone);
  best[0] = {0, 0};
  Table<size_t> first_layer(nodes.size(), std::vector<size_t>(layers + 1));
  for (size_t n = 0; n < nodes.size(); ++n) {
    std::vector<Score> next = best;
    for (size_t last = 0; last <= layers; ++last) first_layer[n][last] = last;  // nothing
    for (size_t last = 1; last <= layers; ++last) {
      for (size_t first = last; first-- > 0;) {
        const double seconds = costs.Seconds(nodes[n], first, last);
        if (seconds > bottleneck || costs.Bytes(first, last, kv_tokens) > costs.Room(nodes[n])) {
          break;
        }
        if (best[first] == kNone) continue;
        const Score score{best[first].first + 1, best[first].second + seconds};
        if (score < next[last]) {
          next[last] = score;
          first_layer[n][last] = first;
        }
      }
    }
    best = std::move(next);
  }

  std::vector<Stage> stages;
  size_t last = layers;
  for (size_t n = nodes.size(); n-- > 0;) {
    const size_t first = first_layer[n][last];
    if (first == last) continue;
    stages.push_back(
        {nodes[n].node, {static_cast<uint32_t>(first), static_cast<uint32_t>(last)}, false});
    last = first;
  }
  std::reverse(stages.begin(), stages.end());
  return stages;
}

absl::Status DoesNotFit(const Costs& costs, const std::vector<PlannerNode>& nodes,
                        const PlannerRules& rules) {
  const uint64_t tokens = rules.kv_tokens_least;
  const size_t layers = costs.layers();
  const uint64_t weights = costs.WeightBytes(0, layers);
  uint64_t room = 0;
  for (const PlannerNode& node : nodes) room = SaturatingAdd(room, costs.Room(node));
  const size_t placed = LayersThatFit(costs, nodes, tokens);
  // One more machine that takes the layers left over.
  const uint64_t missing = SaturatingAdd(costs.Bytes(placed, layers, tokens), rules.overhead_bytes);
  return absl::ResourceExhaustedError(absl::StrCat(
      "the model does not fit: its layers need ", FormatBytes(costs.Bytes(0, layers, tokens)), " (",
      FormatBytes(weights), " of weights and KV for ", tokens, " tokens); ", nodes.size(),
      nodes.size() == 1 ? " node has " : " nodes have ", FormatBytes(room), ", enough for ", placed,
      " of ", layers, " layers; ", FormatBytes(missing),
      " more on another node is missing. Add workers, raise --memory, or take a smaller model or "
      "context"));
}

}  // namespace

absl::StatusOr<StagePlan> PlanStages(const std::vector<LayerCost>& layers,
                                     const std::vector<PlannerNode>& nodes,
                                     const PlannerRules& rules) {
  if (layers.empty()) return absl::InvalidArgumentError("a plan needs at least one layer");
  if (nodes.empty()) return absl::InvalidArgumentError("a plan needs at least one node");
  const Costs costs(layers, rules);
  if (LayersThatFit(costs, nodes, rules.kv_tokens_least) < layers.size()) {
    return DoesNotFit(costs, nodes, rules);
  }
  const uint64_t wanted = std::max(rules.kv_tokens_wanted, rules.kv_tokens_least);
  const uint64_t kv_tokens = MostKvTokens(costs, nodes, rules.kv_tokens_least, wanted);
  StagePlan plan;
  plan.chains.push_back(
      {FewestStages(costs, nodes, kv_tokens, LeastBottleneck(costs, nodes, kv_tokens)), kv_tokens});
  return plan;
}

}  // namespace efedllm
