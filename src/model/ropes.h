// The rotary embeddings of a model's layers.
#ifndef EFEDLLM_MODEL_ROPES_H_
#define EFEDLLM_MODEL_ROPES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "layers/rope.h"
#include "model/model_config.h"

namespace efedllm {

// That of the model, and behind it that of the layers with a window, if they have their own.
// factors: the values of RopeFactorsTensor(), or empty where the file has none. InvalidArgument: a
// factor that is not positive and finite.
absl::StatusOr<std::vector<Rope>> MakeRopes(const ModelConfig& config,
                                            absl::Span<const float> factors);

// Which of them turns this layer's Q and K.
uint32_t RopeOfLayer(const ModelConfig& config, uint32_t layer);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_ROPES_H_
