// Whether a step is valid (cluster/step.h), as far as that can be said without the stage's KV.
#ifndef EFEDLLM_MODEL_STEP_CHECK_H_
#define EFEDLLM_MODEL_STEP_CHECK_H_

#include "absl/status/status.h"
#include "cluster/step.h"

namespace efedllm {

// InvalidArgument says what is wrong.
absl::Status CheckStep(const Step& step, const StepLimits& limits);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_STEP_CHECK_H_
