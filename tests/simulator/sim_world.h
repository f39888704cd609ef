// Small clusters for tests, whose times can be computed by hand.
#ifndef EFEDLLM_TESTS_SIMULATOR_SIM_WORLD_H_
#define EFEDLLM_TESTS_SIMULATOR_SIM_WORLD_H_

#include <string>
#include <vector>

#include "simulator/sim_spec.h"

namespace efedllm {

// Two layers of which each node has memory for one. A row takes a layer 5 ms, eleven more take as
// long again, and the head takes 1 ms a row; a node is 1 ms away from the switch and the
// coordinator next to it; all else takes no time.
inline SimSpec TwoStages() {
  SimSpec spec;
  spec.model = {.name = "test",
                .layers = 2,
                .d_model = 1024,
                .d_ffn = 4096,
                .heads = 16,
                .kv_heads = 16,
                .head_dim = 64,
                .vocab = 1000,
                .bytes_per_weight = 1.0625};
  const uint64_t layer = uint64_t{1} << 24;  // and some
  SimNode node;
  node.profile = {1, (uint64_t{64} << 20) + 3 * layer / 2, 1e18, 1e18, 1e18};
  node.times = {{1, 0.010}, {12, 0.020}};
  node.access = {0.001, 0, 1e15};
  node.name = "a";
  spec.nodes.push_back(node);
  node.name = "b";
  spec.nodes.push_back(node);
  spec.coordinator = node;
  spec.coordinator.name = "coordinator";
  spec.coordinator.access = {0, 0, 1e15};
  spec.coordinator.times = {{1, 0.001}, {2, 0.002}};
  spec.load = {.streams = 1,
               .requests = 1,
               .prompt_tokens = {1, 1},
               .output_tokens = {3, 3},
               .arrivals_per_second = 0};
  spec.rules.context = 64;
  spec.rules.layout = Layout::kChain;
  return spec;
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_SIMULATOR_SIM_WORLD_H_
