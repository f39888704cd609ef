// The planner's candidates: which nodes, in which order, with which layers.
#ifndef EFEDLLM_CLUSTER_PLAN_SEARCH_H_
#define EFEDLLM_CLUSTER_PLAN_SEARCH_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "cluster/chain_speed.h"
#include "cluster/layer_partition.h"
#include "cluster/network.h"
#include "cluster/planner.h"

namespace efedllm {

// A typical request: what prompts and decodes weigh against each other.
inline constexpr double kPromptTokens = 512;
inline constexpr double kGeneratedTokens = 128;

struct PlanCandidate {
  std::vector<ChainShape> chains;
  PlanPrediction prediction;
  double far_tokens_per_second = 0;  // as predicted, if hops on a local network took no time
  double request_seconds = 0;        // of the cluster's time that a typical request costs
};

class PlanSearch {
 public:
  // Borrowed.
  explicit PlanSearch(const PlannerInput& input);

  const LayerSums& layers() const { return layers_; }
  const SpeedModel& model() const { return model_; }
  const std::string& Name(NodeId node) const;

  // The best of their kind. nullopt: the model fits none.
  std::optional<PlanCandidate> BestChain(size_t least_stages) const;
  std::optional<PlanCandidate> BestSingle() const;
  std::optional<PlanCandidate> BestReplicas() const;

  // The same nodes in the same chains, with the final order and partition: those of the present
  // plan as far as they are nearly as good.
  PlanCandidate Settle(const PlanCandidate& candidate) const;

  StagePlan ToPlan(const PlanCandidate& candidate) const;
  std::optional<PlanCandidate> FromPlan(const StagePlan& plan) const;

  // Of all hops of a token through the candidate's first chain.
  double HopSeconds(const PlanCandidate& candidate) const;
  // In words, what would become of the chosen plan with this node.
  std::string WhyStandby(const PlanCandidate& chosen, size_t node) const;

 private:
  using Nodes = std::vector<size_t>;

  PartitionRules RulesFor(size_t nodes) const;
  // nullopt: the model does not fit.
  std::optional<ChainShape> Shape(const Nodes& order, bool thorough) const;
  std::optional<PlanCandidate> Try(const Nodes& nodes) const;
  std::optional<PlanCandidate> TryGroups(const std::vector<Nodes>& groups) const;
  PlanCandidate Weigh(std::vector<ChainShape> chains) const;
  Nodes Order(const Nodes& nodes) const;
  // The nodes in the order in which they are now, the new ones where they fit best.
  Nodes PresentOrder(const Nodes& nodes) const;
  ChainShape SettleChain(const ChainShape& chain) const;
  double Power(size_t node) const;
  std::vector<Nodes> Preferences() const;

  const PlannerInput& input_;
  const LayerSums layers_;
  const Network network_;
  const Network coarse_;
  const SpeedModel model_;
  const SpeedModel coarse_model_;
  absl::flat_hash_map<NodeId, size_t> numbers_;
  std::vector<LayerRange> present_;        // by node
  std::vector<size_t> present_positions_;  // by node: where it stands in the present plan
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_PLAN_SEARCH_H_
