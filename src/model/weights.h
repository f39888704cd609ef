// Which tensors a stage needs, by content: what the coordinator offers and a worker fetches.
#ifndef EFEDLLM_MODEL_WEIGHTS_H_
#define EFEDLLM_MODEL_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cluster/stage_plan.h"
#include "cluster/tensor_spec.h"
#include "model/model_config.h"
#include "model/model_file.h"

namespace efedllm {

// What divides RoPE's angles, [rope.dims / 2]: one of Phi 3's two sets, or else "rope_freqs.weight"
// of Llama 3, which is optional.
absl::string_view RopeFactorsTensor(RopeScaling scaling);

// The tensors of layers [first, last), in the order in which they are used; RoPE's factors, where
// the model has them, first. Biases are there where the model has them. Experts' matrices lie
// behind each other as one. Shapes and types are checked against the config: InvalidArgument
// or Unimplemented names the tensor. Chunk digests are left empty; see TensorHasher.
absl::StatusOr<std::vector<TensorSpec>> StageTensors(const ModelConfig& config,
                                                     const ModelFile& file, LayerRange layers);

// token_embd.weight, and the two tensors of the head; checked like the stage's.
struct HeadSpecs {
  TensorSpec norm;    // output_norm.weight
  TensorSpec weight;  // output.weight, or token_embd.weight where the model ties them
};
absl::StatusOr<TensorSpec> EmbeddingTensor(const ModelConfig& config, const ModelFile& file);
absl::StatusOr<HeadSpecs> HeadTensors(const ModelConfig& config, const ModelFile& file);

// That all of the model's tensors are there and right, and no other that would change the result
// (more norms ...): Unimplemented names it.
absl::Status CheckModelTensors(const ModelConfig& config, const ModelFile& file);

// RoPE's factors divide angles: InvalidArgument where one is not positive and finite.
absl::Status CheckRopeFactors(absl::Span<const float> factors);

// The shape and type check of StageTensors for any list: exactly the tensors that these layers
// need, and optional ones, in any order.
absl::Status CheckStageShapes(const ModelConfig& config, LayerRange layers,
                              const std::vector<TensorSpec>& tensors);
// The same for a list that came over the wire, whose chunk digests must all be there.
absl::Status ValidateStageTensors(const ModelConfig& config, LayerRange layers,
                                  const std::vector<TensorSpec>& tensors);

// Floating-point operations of these tensors' matrices for one token: 2 for each weight that it
// meets, of experts in those that it is sent to. What is computed, factors as factors; work is paid
// as that of the dense model (incentive/work.h).
uint64_t MatmulFlopsPerToken(const ModelConfig& config, const std::vector<TensorSpec>& tensors);

// Bytes of a tensor as packed for the kernels; a vector stays as it is.
uint64_t PackedBytes(const TensorSpec& tensor);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_WEIGHTS_H_
