// Which tensors a stage needs, by content: what the coordinator offers and a worker fetches.
#ifndef EFEDLLM_MODEL_WEIGHTS_H_
#define EFEDLLM_MODEL_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/stage_plan.h"
#include "common/sha256.h"
#include "model/gguf.h"
#include "model/model_config.h"
#include "tensor/dtype.h"

namespace efedllm {

// A tensor travels and is verified in chunks of this many bytes; the last is shorter.
inline constexpr uint64_t kChunkBytes = 1u << 20;

// A tensor's GGUF bytes, by content.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  uint64_t rows = 1;  // 1: a vector
  uint64_t cols = 0;
  std::vector<Sha256Digest> chunks;  // of each chunk, in order

  uint64_t bytes() const;   // of the GGUF form; chunks.size() == ceil(bytes / kChunkBytes)
  Sha256Digest id() const;  // SHA-256 over dtype, shape and the chunk digests: the tensor's name in
                            // caches and requests
};

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
