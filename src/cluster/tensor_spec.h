// A tensor by content: what a coordinator offers, a worker fetches, and a cache holds.
#ifndef EFEDLLM_CLUSTER_TENSOR_SPEC_H_
#define EFEDLLM_CLUSTER_TENSOR_SPEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/sha256.h"
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

  // Of the GGUF form. rows and cols must be sane (ValidateStageTensors, StageTensors).
  uint64_t bytes() const;
  // bytes() in chunks, rounded up; chunks has this many entries once they are hashed.
  uint64_t chunk_count() const { return (bytes() + kChunkBytes - 1) / kChunkBytes; }
  // SHA-256 over dtype, shape and the chunk digests: the tensor's name in caches and requests.
  Sha256Digest id() const;

  friend bool operator==(const TensorSpec&, const TensorSpec&) = default;
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_TENSOR_SPEC_H_
