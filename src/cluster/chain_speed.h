// How fast a chain of stages would be.
#ifndef EFEDLLM_CLUSTER_CHAIN_SPEED_H_
#define EFEDLLM_CLUSTER_CHAIN_SPEED_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cluster/layer_cost.h"
#include "cluster/network.h"
#include "cluster/stage_plan.h"

namespace efedllm {

// A chain whose nodes are numbered as the planner's.
struct ChainShape {
  std::vector<size_t> nodes;
  std::vector<LayerRange> ranges;  // of each node, none empty
  uint64_t kv_tokens = 0;
};

// What the coordinator does to every row that comes back.
struct HeadCost {
  LayerCost cost;
  NodeProfile profile;  // the coordinator's; rates of zero: the head is not counted
};

struct DecodeShape {
  uint32_t rows = 1;           // sequences in a micro-batch
  uint32_t micro_batches = 1;  // on their way at once
  double round_seconds = 0;    // until every sequence has its next token
};

class SpeedModel {
 public:
  // All borrowed. row_bytes: of one row's activations on a hop.
  SpeedModel(const LayerSums& layers, const std::vector<PlannerNode>& nodes, const Network& network,
             const HeadCost& head, double row_bytes)
      : layers_(layers), nodes_(nodes), network_(network), head_(head), row_bytes_(row_bytes) {}

  double StageSeconds(const ChainShape& chain, size_t stage, double rows) const {
    return layers_.Seconds(nodes_[chain.nodes[stage]], chain.ranges[stage], rows);
  }
  // The hop into the stage; stage == stages: back to the coordinator.
  double HopSeconds(const ChainShape& chain, size_t stage, double rows) const;
  double HeadSeconds(double rows) const;
  // Between two steps where nothing waits: the slowest of stages, links and the head.
  double Interval(const ChainShape& chain, double rows, bool with_head) const;
  // From a step's submission until its tokens are known, nothing else being under way.
  double Pass(const ChainShape& chain, double rows) const;

  // With as many micro-batches as make the round the shortest, at least one for every stage.
  DecodeShape Decode(const ChainShape& chain, size_t streams) const;
  // streams: at once, on this chain. 0: as 1.
  PlanPrediction Predict(const ChainShape& chain, size_t streams) const;
  // Prompt tokens a second where many prompts come one after the other.
  double PromptRate(const ChainShape& chain) const;
  // Deals the streams out, each to the chain where it has its tokens the soonest.
  std::vector<size_t> Deal(const std::vector<ChainShape>& chains, size_t streams) const;

 private:
  const LayerSums& layers_;
  const std::vector<PlannerNode>& nodes_;
  const Network& network_;
  const HeadCost& head_;
  const double row_bytes_;
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_CHAIN_SPEED_H_
