#include "cluster/layer_partition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

namespace efedllm {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
// Sums of floats differ in their last bits by how they were made.
constexpr double kRounding = 1 + 1e-9;

}  // namespace

LayerPartitioner::LayerPartitioner(const LayerSums& layers, std::vector<const PlannerNode*> nodes,
                                   const PartitionRules& rules)
    : layers_(layers), nodes_(std::move(nodes)), rules_(rules) {
  for (const PlannerNode* node : nodes_) {
    for (const RowLoad& load : rules_.loads) {
      factors_.push_back(load.weight * FactorAt(node->measured, load.rows));
    }
  }
}

double LayerPartitioner::Seconds(size_t node, LayerRange range) const {
  double seconds = 0;
  for (size_t i = 0; i < rules_.loads.size(); ++i) {
    seconds += factors_[node * rules_.loads.size() + i] *
               layers_.Seconds(nodes_[node]->profile, range, rules_.loads[i].rows);
  }
  return seconds;
}

bool LayerPartitioner::Fits(size_t node, LayerRange range, uint64_t kv_tokens) const {
  const uint64_t memory = nodes_[node]->profile.memory_bytes;
  const uint64_t room = memory > rules_.overhead_bytes ? memory - rules_.overhead_bytes : 0;
  return layers_.Bytes(range, kv_tokens) <= room;
}

bool LayerPartitioner::Fill(uint64_t kv_tokens, double seconds,
                            std::vector<LayerRange>& ranges) const {
  uint32_t placed = 0;
  const auto count = static_cast<uint32_t>(nodes_.size());
  if (rules_.every_node && count > layers_.layers()) return false;
  for (uint32_t node = 0; node < count; ++node) {
    LayerRange range{placed, placed};
    const uint32_t end = layers_.layers() - (rules_.every_node ? count - node - 1 : 0);
    while (placed < end && Fits(node, {range.first, placed + 1}, kv_tokens) &&
           (seconds == kNever || Seconds(node, {range.first, placed + 1}) <= seconds)) {
      ++placed;
    }
    range.last = placed;
    if (rules_.every_node && range.size() == 0) return false;
    ranges[node] = range;
  }
  return placed == layers_.layers();
}

uint32_t LayerPartitioner::LayersThatFit(uint64_t kv_tokens) const {
  std::vector<LayerRange> ranges(nodes_.size());
  if (Fill(kv_tokens, kNever, ranges)) return layers_.layers();
  uint32_t placed = 0;
  for (const LayerRange& range : ranges) placed = std::max(placed, range.last);
  return placed;
}

uint64_t LayerPartitioner::MostKvTokens() const {
  uint64_t fits = rules_.kv_tokens_least;
  uint64_t fails = std::max(rules_.kv_tokens_wanted, rules_.kv_tokens_least) + 1;
  if (LayersThatFit(fails - 1) == layers_.layers()) return fails - 1;
  while (fails - fits > 1) {
    const uint64_t middle = fits + (fails - fits) / 2;
    (LayersThatFit(middle) == layers_.layers() ? fits : fails) = middle;
  }
  return fits;
}

double LayerPartitioner::Slowest(const std::vector<LayerRange>& ranges) const {
  double slowest = 0;
  for (size_t node = 0; node < nodes_.size(); ++node) {
    if (ranges[node].size() > 0) slowest = std::max(slowest, Seconds(node, ranges[node]));
  }
  return slowest;
}

std::optional<LayerPartition> LayerPartitioner::Quick() const {
  LayerPartition partition;
  partition.ranges.resize(nodes_.size());
  if (LayersThatFit(rules_.kv_tokens_least) < layers_.layers()) return std::nullopt;
  partition.kv_tokens = MostKvTokens();
  std::vector<LayerRange> ranges(nodes_.size());
  Fill(partition.kv_tokens, kNever, partition.ranges);
  // Each partition found says how slow it really is, so few steps are needed.
  double fits = partition.slowest = Slowest(partition.ranges);
  double fails = 0;
  for (int i = 0; i < 64 && fails < fits; ++i) {
    const double middle = i % 8 == 7 ? std::nexttoward(fits, 0) : (fails + fits) / 2;
    if (!Fill(partition.kv_tokens, middle, ranges)) {
      fails = middle;
      if (i % 8 == 7) break;  // nothing is faster
      continue;
    }
    fits = Slowest(ranges);
    partition.ranges = ranges;
    partition.slowest = fits;
  }
  return partition;
}

std::vector<LayerRange> LayerPartitioner::Search(uint64_t kv_tokens, double most_seconds,
                                                 absl::Span<const LayerRange> present) const {
  using Score = std::tuple<uint64_t, size_t, double>;  // bytes to move, stages, seconds
  constexpr Score kNone{UINT64_MAX, 0, 0};
  const uint32_t count = layers_.layers();
  std::vector<Score> best(count + 1, kNone);
  best[0] = {0, 0, 0};
  std::vector<std::vector<uint32_t>> first_layer(nodes_.size());
  for (size_t node = 0; node < nodes_.size(); ++node) {
    std::vector<Score> next = rules_.every_node ? std::vector<Score>(count + 1, kNone) : best;
    first_layer[node].resize(count + 1);
    for (uint32_t last = 0; last <= count; ++last) first_layer[node][last] = last;  // nothing
    for (uint32_t last = 1; last <= count; ++last) {
      for (uint32_t first = last; first-- > 0;) {
        const LayerRange range{first, last};
        const double seconds = Seconds(node, range);
        if (seconds > most_seconds || !Fits(node, range, kv_tokens)) break;
        if (best[first] == kNone) continue;
        auto [moved, stages, total] = best[first];
        if (!present.empty()) {
          const LayerRange has = present[node];
          const LayerRange kept{std::max(first, has.first),
                                std::max({first, has.first, std::min(last, has.last)})};
          moved += layers_.WeightBytes(range) - layers_.WeightBytes(kept);
        }
        const Score score{moved, stages + 1, total + seconds};
        if (score < next[last]) {
          next[last] = score;
          first_layer[node][last] = first;
        }
      }
    }
    best = std::move(next);
  }
  std::vector<LayerRange> ranges(nodes_.size());
  uint32_t last = count;
  for (size_t node = nodes_.size(); node-- > 0;) {
    const uint32_t first = first_layer[node][last];
    ranges[node] = {first, last};
    last = first;
  }
  return ranges;
}

std::optional<LayerPartition> LayerPartitioner::Best() const { return Nearest({}, 1); }

std::optional<LayerPartition> LayerPartitioner::Nearest(absl::Span<const LayerRange> present,
                                                        double slack) const {
  std::optional<LayerPartition> partition = Quick();
  if (!partition) return std::nullopt;
  partition->ranges =
      Search(partition->kv_tokens, partition->slowest * std::max(slack, kRounding), present);
  partition->slowest = Slowest(partition->ranges);
  return partition;
}

}  // namespace efedllm
