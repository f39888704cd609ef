// What must hold in the simulated world at all times. What does not is written to world.violations.
#ifndef EFEDLLM_FAULTSIM_CHECKS_H_
#define EFEDLLM_FAULTSIM_CHECKS_H_

#include <memory>
#include <string>
#include <vector>

#include "cluster/stage_plan.h"
#include "faultsim/sim_coordinator.h"
#include "faultsim/sim_worker.h"
#include "faultsim/world.h"
#include "wire/cluster_wire.h"

namespace efedllm::faultsim {

// Each chain has all layers once, in order; no node stands in two places; what a node is to hold
// fits into its memory; each stage's neighbours are those of the chain. assignments: as they go
// out.
void CheckPlan(World& world, const StagePlan& plan, const std::vector<Assignment>& assignments);

// After each event: what nodes and coordinator hold is bounded, and while nothing is under way a
// node holds no more KV than the coordinator knows of.
void CheckEachStep(World& world, const SimCoordinator& coordinator,
                   const std::vector<std::unique_ptr<SimWorker>>& workers);
// When all requests have ended: what is left of them; empty: nothing.
std::string WhatIsLeft(const SimCoordinator& coordinator,
                       const std::vector<std::unique_ptr<SimWorker>>& workers);

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_CHECKS_H_
