#include "cluster/plan_repair.h"

#include <algorithm>

#include "cluster/network.h"

namespace efedllm {
namespace {

const PlannerNode* FindNode(const PlannerInput& input, NodeId node) {
  const auto found = std::find_if(input.nodes.begin(), input.nodes.end(),
                                  [&](const PlannerNode& n) { return n.node == node; });
  return found == input.nodes.end() ? nullptr : &*found;
}

// Positions for which the node has room if it holds the stage.
uint64_t RoomFor(const PlannerInput& input, const LayerSums& layers, const PlannerNode& node,
                 LayerRange range, bool with_outputs) {
  const uint64_t fixed = layers.WeightBytes(range) + input.rules.overhead_bytes;
  if (node.profile.memory_bytes <= fixed) return 0;
  uint64_t per_token = layers.Bytes(range, 1) - layers.WeightBytes(range);
  if (with_outputs) per_token += static_cast<uint64_t>(input.rules.row_bytes);
  return per_token == 0 ? UINT64_MAX : (node.profile.memory_bytes - fixed) / per_token;
}

bool IsPlanFor(const LayerSums& layers, const StagePlan& plan) {
  for (const Chain& chain : plan.chains) {
    uint32_t next = 0;
    for (const Stage& stage : chain.stages) {
      if (stage.layers.first != next || stage.layers.last <= next) return false;
      next = stage.layers.last;
    }
    if (next != layers.layers()) return false;
  }
  return !plan.chains.empty();
}

bool Holds(const StagePlan& plan, NodeId node) {
  const std::vector<Stage> all = plan.AllStages();
  return std::any_of(all.begin(), all.end(), [&](const Stage& s) { return s.node == node; });
}

// Which edges the coordinator has to relay.
void SetRelays(const PlannerInput& input, StagePlan& plan) {
  const Network network(input.nodes, input.links);
  const auto end = [&](const Stage& stage) {
    return static_cast<size_t>(FindNode(input, stage.node) - input.nodes.data()) + 1;
  };
  for (Chain& chain : plan.chains) {
    for (size_t i = 0; i + 1 < chain.stages.size(); ++i) {
      chain.stages[i].relayed = !network.Direct(end(chain.stages[i]), end(chain.stages[i + 1]));
    }
    chain.stages.back().relayed = false;
  }
}

}  // namespace

void KeepOutputs(const PlannerInput& input, StagePlan& plan) {
  const LayerSums layers(input.layers);
  for (Chain& chain : plan.chains) {
    uint64_t room = chain.kv_tokens;
    for (size_t i = 0; i + 1 < chain.stages.size(); ++i) {
      const PlannerNode* node = FindNode(input, chain.stages[i].node);
      if (node == nullptr) return;
      room = std::min(room, RoomFor(input, layers, *node, chain.stages[i].layers, true));
    }
    chain.keeps_outputs = chain.stages.size() > 1 &&
                          room >= chain.kv_tokens - chain.kv_tokens / 10 &&
                          room >= input.rules.kv_tokens_least;
    if (chain.keeps_outputs) chain.kv_tokens = room;
  }
}

std::optional<StagePlan> RepairPlan(const PlannerInput& input, const StagePlan& plan) {
  const LayerSums layers(input.layers);
  if (!IsPlanFor(layers, plan)) return std::nullopt;
  StagePlan repaired = plan;
  for (Chain& chain : repaired.chains) {
    for (size_t i = 0; i < chain.stages.size(); ++i) {
      if (FindNode(input, chain.stages[i].node) != nullptr) continue;
      const bool outputs = chain.keeps_outputs && i + 1 < chain.stages.size();
      const PlannerNode* best = nullptr;
      double best_seconds = 0;
      for (const PlannerNode& node : input.nodes) {
        if (Holds(repaired, node.node)) continue;
        const LayerRange range = chain.stages[i].layers;
        if (RoomFor(input, layers, node, range, outputs) < chain.kv_tokens) continue;
        const double seconds = layers.Seconds(node, range, 1);
        if (best != nullptr && seconds >= best_seconds) continue;
        best = &node;
        best_seconds = seconds;
      }
      if (best == nullptr) return std::nullopt;
      chain.stages[i].node = best->node;
    }
  }
  SetRelays(input, repaired);
  repaired.prediction = PredictPlan(input, repaired);
  return repaired;
}

bool FitsBeside(const PlannerInput& input, const StagePlan& present, const StagePlan& next) {
  const LayerSums layers(input.layers);
  // KV, and what the stage keeps of its outputs.
  const auto state_bytes = [&](const Chain& chain, const Stage& stage) {
    const bool outputs = chain.keeps_outputs && &stage != &chain.stages.back();
    return layers.Bytes(stage.layers, chain.kv_tokens) - layers.WeightBytes(stage.layers) +
           (outputs ? chain.kv_tokens * static_cast<uint64_t>(input.rules.row_bytes) : 0);
  };
  for (const Chain& old_chain : present.chains) {
    for (const Stage& old : old_chain.stages) {
      const PlannerNode* node = FindNode(input, old.node);
      for (const Chain& chain : next.chains) {
        for (const Stage& stage : chain.stages) {
          if (node == nullptr || stage.node != old.node) continue;
          const bool same = stage.layers == old.layers && chain.kv_tokens == old_chain.kv_tokens;
          const LayerRange both{std::max(old.layers.first, stage.layers.first),
                                std::min(old.layers.last, stage.layers.last)};
          uint64_t bytes = layers.WeightBytes(old.layers) + layers.WeightBytes(stage.layers);
          if (both.first < both.last) bytes -= layers.WeightBytes(both);
          bytes += state_bytes(old_chain, old) + state_bytes(chain, stage);
          if (!same && bytes > node->profile.memory_bytes) return false;
        }
      }
    }
  }
  return true;
}

std::vector<std::optional<ChainSuccession>> Succeed(
    const StagePlan& served, const StagePlan& next,
    const std::vector<std::optional<NodeId>>& kept_of) {
  std::vector<std::optional<ChainSuccession>> successions;
  std::vector<bool> taken(served.chains.size());
  size_t first = 0;  // the chain's first stage among all
  for (const Chain& chain : next.chains) {
    std::optional<ChainSuccession>& best = successions.emplace_back();
    uint32_t most_layers = 0;
    for (size_t s = 0; s < served.chains.size(); ++s) {
      if (taken[s]) continue;
      const Chain& old = served.chains[s];
      ChainSuccession succession{s, {}};
      uint32_t layers = 0;
      bool next_is_lost = false;
      for (size_t i = chain.stages.size(); i-- > 0;) {
        const Stage& stage = chain.stages[i];
        const std::optional<NodeId>& from = kept_of[first + i];
        const auto was = std::find_if(old.stages.begin(), old.stages.end(), [&](const Stage& o) {
          return from.has_value() && o.layers == stage.layers && o.node == *from;
        });
        const bool gave =
            old.keeps_outputs && was != old.stages.end() && was + 1 != old.stages.end();
        next_is_lost = was == old.stages.end() || (next_is_lost && !gave);
        if (next_is_lost) {
          succession.lost.insert(succession.lost.begin(), static_cast<uint32_t>(i));
        } else {
          layers += stage.layers.size();
        }
      }
      if (layers <= most_layers) continue;
      most_layers = layers;
      best = succession;
    }
    if (best) taken[best->chain] = true;
    first += chain.stages.size();
  }
  return successions;
}

}  // namespace efedllm
