// Plans that go on where one before them ended: with as few stages moved as possible, and with what
// the others hold still of use.
#ifndef EFEDLLM_CLUSTER_PLAN_REPAIR_H_
#define EFEDLLM_CLUSTER_PLAN_REPAIR_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cluster/planner.h"
#include "cluster/stage_plan.h"

namespace efedllm {

// Sets Chain::keeps_outputs where the nodes have memory for it: for all of the chain's KV tokens,
// or for nine tenths of them and as many as the rules demand (kv_tokens falls then).
void KeepOutputs(const PlannerInput& input, StagePlan& plan);

// The same plan with each stage whose node is not in the input on a node that holds none, layer for
// layer: of those with memory for it the ones with which a typical request costs the least.
// nullopt: there are none, or it is not a plan for these layers.
std::optional<StagePlan> RepairPlan(const PlannerInput& input, const StagePlan& plan);

// Whether every node that holds a stage now has memory for that of the next plan beside it, where
// it is another one. Weights of both count once.
bool FitsBeside(const PlannerInput& input, const StagePlan& present, const StagePlan& next);

// A chain of the next plan takes over the sequences of one that served.
struct ChainSuccession {
  size_t chain = 0;            // of the plan that served
  std::vector<uint32_t> lost;  // stages of the next chain whose KV has to be computed again
};

// By chain of `next`; nullopt: it has no KV to go on with. kept_of: by next.AllStages(), the node
// that held the stage of `served` whose KV its node has now: itself, or who handed it over;
// nullopt: it has none. A stage that is kept but can't give to a lost one behind it what it had
// sent is lost, too.
std::vector<std::optional<ChainSuccession>> Succeed(
    const StagePlan& served, const StagePlan& next,
    const std::vector<std::optional<NodeId>>& kept_of);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_PLAN_REPAIR_H_
