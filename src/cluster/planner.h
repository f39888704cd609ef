// Who holds which layers: a pure function of what the nodes and links were measured to do, no I/O,
// no clock. A thousand nodes take it about a second.
#ifndef EFEDLLM_CLUSTER_PLANNER_H_
#define EFEDLLM_CLUSTER_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/chain_speed.h"
#include "cluster/layer_cost.h"
#include "cluster/link.h"
#include "cluster/stage_plan.h"
#include "common/ids.h"

namespace efedllm {

// kAuto: a chain, or what is clearly better: replicas, or one node alone. kChain: one chain over
// all nodes, where each can hold a layer, or over those that help. kReplicas: several chains
// wherever the nodes suffice for it.
enum class Layout { kAuto, kChain, kReplicas };

struct PlannerRules {
  uint64_t kv_tokens_wanted = 0;  // KV room to plan for, all sequences together
  uint64_t kv_tokens_least = 0;   // less than this is refused: one sequence of the whole context
  uint64_t overhead_bytes = 64u << 20;  // a node's memory beside weights and KV: buffers and code
  Layout layout = Layout::kAuto;
  size_t streams = 16;   // sequences at once that the plan is made for
  double row_bytes = 0;  // of one row's activations on a hop
  HeadCost head;
};

struct PlannerInput {
  std::vector<LayerCost> layers;
  std::vector<PlannerNode> nodes;
  std::vector<LinkSpeed> links;
  PlannerRules rules;
  StagePlan present;  // what the nodes hold now; no chains: nothing
};

// Something else that could be done with the nodes.
struct PlanAlternative {
  std::string what;  // "one node alone (name)", "one chain", "replicas"
  size_t chains = 0;
  size_t nodes = 0;
  PlanPrediction prediction;
};

struct StandbyNode {
  NodeId node;
  std::string why;
};

struct PlanReport {
  StagePlan plan;  // epoch 0
  std::vector<PlanAlternative> alternatives;
  std::vector<StandbyNode> standby;
  std::vector<std::string> advice;  // sentences for the operator
};

// The best plan for `streams` sequences that bring prompts and generate:
// - one chain: the nodes, their order and the partition of the layers with which a typical request
//   costs the least; as long as not all nodes were measured at work, all of them where that costs
//   less than 1.5 times as much. Up to eight nodes every subset is tried; among more, those that
//   are fast, near and near each other. Nodes that do not help are standby.
// - replicas instead, where they generate more than 1.25 times as much (kAuto); over a near network
//   only once all nodes were measured at work.
// - one node instead, where it is more than 1.25 times as fast for one sequence and for many, and
//   more than a few milliseconds of hops are the reason (kAuto).
// Of partitions that are within 5 % of the best, the one that moves the fewest bytes.
// ResourceExhausted: the model does not fit; the message says how much memory it needs, how much
// there is on how many nodes, and how much is missing. InvalidArgument: no nodes or no layers.
absl::StatusOr<PlanReport> MakePlan(const PlannerInput& input);

// What the plan is expected to do with what is known now; zeros where one of its nodes is not in
// the input.
PlanPrediction PredictPlan(const PlannerInput& input, const StagePlan& plan);

// What a typical request costs of the cluster's time: how plans are compared.
double RequestSeconds(const PlanPrediction& prediction);

// One stage, as predicted.
struct StageForecast {
  double decode_seconds = 0;  // of a micro-batch of `rows`
  double hop_seconds = 0;     // into it
  double share = 0;           // of the round that it computes: 1 is busy all the time
};

struct ChainForecast {
  size_t streams = 0;  // of those that the plan is made for
  DecodeShape decode;
  PlanPrediction prediction;
  std::vector<StageForecast> stages;
  double head_share = 0;
  size_t bottleneck = 0;  // the stage
};

// By chain of the plan; empty where one of its nodes is not in the input.
std::vector<ChainForecast> ForecastPlan(const PlannerInput& input, const StagePlan& plan);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_PLANNER_H_
