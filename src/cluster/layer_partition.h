// Cuts a model's layers into stages for nodes whose order is given.
#ifndef EFEDLLM_CLUSTER_LAYER_PARTITION_H_
#define EFEDLLM_CLUSTER_LAYER_PARTITION_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "cluster/layer_cost.h"
#include "cluster/stage_plan.h"

namespace efedllm {

// A share of the work: steps of so many rows.
struct RowLoad {
  double rows = 1;
  double weight = 1;
};

struct PartitionRules {
  uint64_t kv_tokens_wanted = 0;  // KV room to plan for, all sequences together
  uint64_t kv_tokens_least = 0;   // less than this is no partition
  uint64_t overhead_bytes = 0;    // a node's memory beside weights and KV: buffers and code
  std::vector<RowLoad> loads = {{1, 1}};
  bool every_node = false;  // every node gets a layer at least
};

// By node, in their order; an empty range: it got nothing.
struct LayerPartition {
  std::vector<LayerRange> ranges;
  uint64_t kv_tokens = 0;
  double slowest = 0;  // seconds of work of the slowest stage
};

class LayerPartitioner {
 public:
  // All borrowed; nodes: in the order of the chain.
  LayerPartitioner(const LayerSums& layers, std::vector<const PlannerNode*> nodes,
                   const PartitionRules& rules);

  // Layers that fit when every node takes as many as it can: no partition holds more.
  uint32_t LayersThatFit(uint64_t kv_tokens) const;
  // The partition whose slowest stage is the fastest, within every node's memory, with as much KV
  // as fits, at most what is wanted. Parametric search: O((layers + nodes) x log). Nodes at the end
  // may get little. nullopt: the model does not fit.
  std::optional<LayerPartition> Quick() const;
  // Of all partitions that are as good as Quick's, one of the fewest stages, and of these one of
  // the least total time: a node that does not help gets no layers. O(layers^2 x nodes).
  std::optional<LayerPartition> Best() const;
  // Of all partitions whose slowest stage takes at most `slack` times that of Quick's, one that
  // moves the fewest bytes from where they are now (present: by node); then as Best.
  std::optional<LayerPartition> Nearest(absl::Span<const LayerRange> present, double slack) const;

 private:
  double Seconds(size_t node, LayerRange range) const;
  bool Fits(size_t node, LayerRange range, uint64_t kv_tokens) const;
  uint64_t MostKvTokens() const;
  // Every node in turn takes all that it can in this time. True: that was all layers.
  bool Fill(uint64_t kv_tokens, double seconds, std::vector<LayerRange>& ranges) const;
  double Slowest(const std::vector<LayerRange>& ranges) const;
  std::vector<LayerRange> Search(uint64_t kv_tokens, double most_seconds,
                                 absl::Span<const LayerRange> present) const;

  const LayerSums& layers_;
  const std::vector<const PlannerNode*> nodes_;
  const PartitionRules& rules_;
  std::vector<double> factors_;  // nodes x loads
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_LAYER_PARTITION_H_
