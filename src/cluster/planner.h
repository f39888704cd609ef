// Partitions a model's layers over nodes: a pure function, no I/O, no clock.
#ifndef EFEDLLM_CLUSTER_PLANNER_H_
#define EFEDLLM_CLUSTER_PLANNER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/node_profile.h"
#include "cluster/stage_plan.h"
#include "common/ids.h"

namespace efedllm {

struct LayerCost {
  uint64_t weight_bytes = 0;     // as packed in memory
  uint64_t flops_per_token = 0;  // dense reference: 2 x parameters
  uint64_t kv_bytes_per_token = 0;
};

struct PlannerNode {
  NodeId node;
  std::string name;  // for messages
  NodeProfile profile;
};

struct PlannerRules {
  uint64_t kv_tokens_wanted = 0;  // KV room to plan for, all sequences together
  uint64_t kv_tokens_least = 0;   // less than this is refused: one sequence of the whole context
  uint64_t overhead_bytes = 64u << 20;  // a node's memory beside weights and KV: buffers and code
};

// The contiguous partition, in the order of `nodes`, whose slowest stage takes the least time for a
// decode step (weights read once at the node's bandwidth, or computed at its rate, whichever is
// longer), within every node's memory. Nodes that do not help get no layers. Min-max dynamic
// programme over (layer, node), O(layers^2 x nodes). The plan's epoch is left 0; its kv_tokens is
// what fits on every stage, at most kv_tokens_wanted. ResourceExhausted: the model does not fit;
// the message says how much memory it needs, how much there is on how many nodes, and how much is
// missing. InvalidArgument: no nodes or no layers.
absl::StatusOr<StagePlan> PlanStages(const std::vector<LayerCost>& layers,
                                     const std::vector<PlannerNode>& nodes,
                                     const PlannerRules& rules);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_PLANNER_H_
