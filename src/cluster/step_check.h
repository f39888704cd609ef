// Whether a step is valid (cluster/step.h), as far as that can be said without a stage's KV.
#ifndef EFEDLLM_CLUSTER_STEP_CHECK_H_
#define EFEDLLM_CLUSTER_STEP_CHECK_H_

#include "absl/status/status.h"
#include "cluster/step.h"

namespace efedllm {

// Checks: within limits, trims, forks and spans each of distinct sequences, forks and spans not
// empty, no sequence trimmed to more than where it goes on (but in a replay, which goes back over
// what is kept), positions in range and not overflowing, replayed stages in ascending order.
// InvalidArgument says what is wrong.
absl::Status CheckStep(const Step& step, const StepLimits& limits);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_STEP_CHECK_H_
