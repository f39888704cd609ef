// Other weights than those that a stage was assigned.
#ifndef EFEDLLM_TESTS_ADVERSARY_CHEAT_WEIGHTS_H_
#define EFEDLLM_TESTS_ADVERSARY_CHEAT_WEIGHTS_H_

#include <vector>

#include "model/tensor_loader.h"

namespace efedllm {

// Every matrix of Q8_0 becomes one of Q4_0: half the memory, and faster.
void LowerToQ4(std::vector<StageTensor>& tensors);

// The last layer adds nothing to what comes in: the stage computes one layer less.
void SkipLastLayer(std::vector<StageTensor>& tensors);

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_ADVERSARY_CHEAT_WEIGHTS_H_
