// What a node measured of itself; the planner's input.
#ifndef EFEDLLM_CLUSTER_NODE_PROFILE_H_
#define EFEDLLM_CLUSTER_NODE_PROFILE_H_

#include <cstdint>

namespace efedllm {

struct NodeProfile {
  uint32_t threads = 1;
  uint64_t memory_bytes = 0;  // what eFedLLM may use here: --memory, or a share of what was free
  double read_bytes_per_second = 0;  // memory bandwidth, all threads reading
  double int8_ops_per_second = 0;    // of the quantized many-row kernel, all threads
  double f32_flops_per_second = 0;   // of the f32 many-row kernel, all threads
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_NODE_PROFILE_H_
