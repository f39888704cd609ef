// Which tensors a stage needs, by content: what the coordinator offers and a worker fetches.
#ifndef EFEDLLM_MODEL_WEIGHTS_H_
#define EFEDLLM_MODEL_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/stage_plan.h"
#include "cluster/tensor_spec.h"
#include "model/gguf.h"
#include "model/model_config.h"

namespace efedllm {

// The tensors of layers [first, last), in the order in which they are used; rope_freqs.weight,
// where the model has it, first. Shapes and types are checked against the config: InvalidArgument
// or Unimplemented names the tensor. Chunk digests are left empty; see TensorHasher.
absl::StatusOr<std::vector<TensorSpec>> StageTensors(const ModelConfig& config,
                                                     const GgufFile& file, LayerRange layers);

// The same check for a list that came over the wire: exactly the tensors that these layers need, of
// the right shapes.
absl::Status ValidateStageTensors(const ModelConfig& config, LayerRange layers,
                                  const std::vector<TensorSpec>& tensors);

// Bytes of a tensor as packed for the kernels, and of a whole layer: the planner's input.
uint64_t PackedBytes(const TensorSpec& tensor);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_WEIGHTS_H_
