#include "faultsim/checks.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "model/stage_executor.h"
#include "model/weights.h"

namespace efedllm::faultsim {
namespace {

constexpr char kPlan[] = "the plan is legal";
constexpr char kBounded[] = "nothing grows without bound";
constexpr char kAccounts[] = "nodes hold no more KV than is known";
constexpr char kGhosts[] = "a node is attached once";
constexpr size_t kMostEvents = 2000;
constexpr size_t kMostConnections = 400;

}  // namespace

void CheckPlan(World& world, const StagePlan& plan, const std::vector<Assignment>& assignments) {
  std::set<NodeId> nodes;
  auto assignment = assignments.begin();
  for (const Chain& chain : plan.chains) {
    uint32_t next_layer = 0;
    NodeId upstream = kCoordinatorNode;
    for (size_t i = 0; i < chain.stages.size(); ++i, ++assignment) {
      const NodeId node = chain.stages[i].node;
      if (!nodes.insert(node).second) world.Violation(kPlan, "node ", node.v, " has two stages");
      if (assignment->layers.first != next_layer ||
          assignment->layers.last <= assignment->layers.first) {
        world.Violation(kPlan, "stage ", i, " has layers [", assignment->layers.first, ", ",
                        assignment->layers.last, ") where ", next_layer, " is the next");
      }
      next_layer = assignment->layers.last;
      if (assignment->upstream != upstream) world.Violation(kPlan, "stage ", i, "'s upstream");
      upstream = node;
      uint64_t bytes = assignment->kv_tokens *
                       StageKvBytesPerToken(assignment->config, assignment->kv_type,
                                            assignment->layers.size(), assignment->keep_outputs);
      for (const TensorSpec& tensor : assignment->tensors) bytes += PackedBytes(tensor);
      const uint64_t memory = world.memory_bytes[node];
      if (bytes > memory) {
        world.Violation(kPlan, "stage ", i, " takes ", bytes, " bytes, node ", node.v, " has ",
                        memory);
      }
      if (assignment->epoch != plan.epoch) world.Violation(kPlan, "an assignment of another epoch");
    }
    if (next_layer != TinyModel::kLayers) world.Violation(kPlan, "layers are missing");
  }
}

void CheckEachStep(World& world, const SimCoordinator& coordinator,
                   const std::vector<std::unique_ptr<SimWorker>>& workers) {
  if (world.loop.waiting() > kMostEvents) {
    world.Violation(kBounded, world.loop.waiting(), " events wait");
  }
  if (world.network.connections() > kMostConnections) {
    world.Violation(kBounded, world.network.connections(), " connections");
  }
  if (!coordinator.alive()) return;
  for (const auto& [node, worker] : world.workers) {
    if (coordinator.Links(node) > 1) world.Violation(kGhosts, worker->name, " is attached twice");
  }
  const ServingLoop& loop = coordinator.loop();
  // Steps or words to the nodes are under way, or are to come.
  if (!loop.serving() || loop.in_flight() > 0 || loop.holding_kv() != loop.running()) return;
  const Epoch epoch = coordinator.epoch();
  if (!coordinator.all_stepped()) return;
  const uint64_t known = loop.kv_tokens_held() + loop.kv_tokens_cached();
  for (const auto& worker : workers) {
    if (!worker->alive() || worker->busy()) continue;
    const auto& stage = worker->slots().running();
    if (stage == nullptr || !stage->running() || stage->epoch() != epoch) continue;
    const uint64_t used = stage->executor()->kv_tokens_used();
    if (used > known) {
      world.Violation(kAccounts, worker->process().name, " holds KV of ", used,
                      " positions, and the coordinator knows of ", known);
    }
  }
}

std::string WhatIsLeft(const SimCoordinator& coordinator,
                       const std::vector<std::unique_ptr<SimWorker>>& workers) {
  if (!coordinator.alive()) return "the coordinator is down";
  const ServingLoop& loop = coordinator.loop();
  if (loop.in_flight() + loop.running() + loop.waiting() > 0) {
    return absl::StrCat(loop.in_flight(), " steps in flight, ", loop.running(), " running, ",
                        loop.waiting(), " waiting");
  }
  if (loop.holding_kv() > 0) return absl::StrCat(loop.holding_kv(), " sequences hold KV");
  for (const auto& worker : workers) {
    if (worker->busy()) return absl::StrCat(worker->process().name, " still computes");
  }
  return "";
}

}  // namespace efedllm::faultsim
