// Who holds which stage.
#ifndef EFEDLLM_CLUSTER_STAGE_PLAN_H_
#define EFEDLLM_CLUSTER_STAGE_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/ids.h"

namespace efedllm {

// Layers [first, last).
struct LayerRange {
  uint32_t first = 0;
  uint32_t last = 0;

  uint32_t size() const { return last - first; }
  friend bool operator==(const LayerRange&, const LayerRange&) = default;
};

struct Stage {
  NodeId node;
  LayerRange layers;

  friend bool operator==(const Stage&, const Stage&) = default;
};

// Stages in the order that a token passes them: contiguous, none empty, all of the model's layers.
// Nodes that got no layers are standby and do not stand here.
struct StagePlan {
  Epoch epoch;
  std::vector<Stage> stages;
  uint64_t kv_tokens =
      0;  // token positions for which every stage has KV memory, all sequences together
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_STAGE_PLAN_H_
