// What a step's work counts: floating-point operations of the dense reference model, so that
// quantized or compressed computing is paid like the work that it replaces.
#ifndef EFEDLLM_INCENTIVE_WORK_H_
#define EFEDLLM_INCENTIVE_WORK_H_

#include <cstdint>

#include "cluster/model_config.h"
#include "cluster/stage_plan.h"
#include "cluster/step.h"

namespace efedllm {

// Weights of one layer's matrices that a token uses: of experts, those that it is sent to. Norms
// and biases are left out.
uint64_t LayerParameters(const ModelConfig& config);

// FLOPs of the layers over the step: 2 x parameters for each token, and 4 x heads x head_dim for
// each position that a token attends to (itself and all before it). config: validated. Saturates.
uint64_t StageWorkFlops(const ModelConfig& config, LayerRange layers, const Step& step);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_WORK_H_
