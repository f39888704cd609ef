// A simulated cluster's plan, by the real planner.
#ifndef EFEDLLM_SIMULATOR_SIM_PLAN_H_
#define EFEDLLM_SIMULATOR_SIM_PLAN_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "cluster/planner.h"
#include "common/ids.h"
#include "simulator/sim_spec.h"

namespace efedllm {

// The spec's node i has the id i + 1: 0 is the coordinator's.
inline size_t SimNodeIndex(NodeId node) { return node.v - 1; }

// What the coordinator would know after a while: profiles, links, and what stages were measured to
// take.
PlannerInput SimPlannerInput(const SimSpec& spec);

// The real planner's plan, or the one that the spec has. ResourceExhausted: the model
// does not fit.
absl::StatusOr<PlanReport> PlanSimulation(const SimSpec& spec);

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_SIM_PLAN_H_
