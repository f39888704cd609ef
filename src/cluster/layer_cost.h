// What layers cost on a node: the planner's arithmetic.
#ifndef EFEDLLM_CLUSTER_LAYER_COST_H_
#define EFEDLLM_CLUSTER_LAYER_COST_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cluster/node_profile.h"
#include "cluster/stage_plan.h"
#include "common/ids.h"

namespace efedllm {

struct LayerCost {
  uint64_t weight_bytes = 0;     // as packed in memory
  uint64_t flops_per_token = 0;  // 2 for each weight that a token meets
  uint64_t kv_bytes_per_token = 0;
};

// At steps of so many rows a node took `factor` times what its profile says.
struct SpeedFactor {
  double rows = 1;
  double factor = 1;
};

struct PlannerNode {
  NodeId node;
  std::string name;  // for messages
  NodeProfile profile;
  std::vector<SpeedFactor> measured;  // by ascending rows; empty: never measured at work
};

// 1 where nothing was measured; between two row counts linear over their logarithm, flat beyond.
double FactorAt(const std::vector<SpeedFactor>& measured, double rows);

// Sums over ranges of layers, each in O(1).
class LayerSums {
 public:
  explicit LayerSums(const std::vector<LayerCost>& layers);

  uint32_t layers() const { return static_cast<uint32_t>(sums_.size() - 1); }
  uint64_t WeightBytes(LayerRange range) const;
  // With KV for so many tokens. Saturates.
  uint64_t Bytes(LayerRange range, uint64_t kv_tokens) const;

  // One step of so many rows by the node's profile: all weights are read once and all products
  // computed, in part at the same time.
  double Seconds(const NodeProfile& profile, LayerRange range, double rows) const;
  // The same corrected by what was measured.
  double Seconds(const PlannerNode& node, LayerRange range, double rows) const {
    return Seconds(node.profile, range, rows) * FactorAt(node.measured, rows);
  }

 private:
  struct Sum {
    uint64_t weight_bytes = 0;
    uint64_t kv_bytes_per_token = 0;
    double int8_ops = 0;
    double f32_flops = 0;
  };
  std::vector<Sum> sums_;  // of layers [0, i)
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_LAYER_COST_H_
