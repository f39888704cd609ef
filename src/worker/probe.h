// A node measures itself: what the planner knows of it.
#ifndef EFEDLLM_WORKER_PROBE_H_
#define EFEDLLM_WORKER_PROBE_H_

#include <cstdint>

#include "cluster/node_profile.h"
#include "layers/compute.h"

namespace efedllm {

// Rates by running all of compute's threads for well under a second in total. memory_bytes: what
// eFedLLM may use; 0: 80 % of what is available now.
NodeProfile MeasureNode(Compute& compute, uint64_t memory_bytes);

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_PROBE_H_
