// The two ends of a model that stay with the coordinator: token -> first activation, last
// activation -> logits.
#ifndef EFEDLLM_MODEL_EMBEDDING_H_
#define EFEDLLM_MODEL_EMBEDDING_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "layers/compute.h"
#include "layers/linear.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/weight_cache.h"
#include "tensor/dtype.h"
#include "tensor/matrix.h"

namespace efedllm {

// Reads rows of token_embd.weight straight from the mapped file, scaled where the architecture does
// so. Thread-safe. Borrows file.
class Embedding {
 public:
  static absl::StatusOr<Embedding> Create(const ModelConfig& config, const ModelFile& file);

  // out: [tokens.size(), d_model]. InvalidArgument: a token outside of the vocabulary.
  // DataLoss: a row that is not finite.
  absl::Status Lookup(absl::Span<const int32_t> tokens, MatrixRef out) const;

 private:
  DType dtype_ = DType::kF32;
  uint64_t rows_ = 0;
  uint64_t cols_ = 0;
  float scale_ = 1;
  absl::Span<const uint8_t> bytes_;
};

// RMSNorm and output.weight (token_embd.weight where the model ties them), and the soft cap. One
// call at a time. Immutable but for its scratch memory.
class OutputHead {
 public:
  // Packs the weights into memory. compute is borrowed and outlives this.
  static absl::StatusOr<std::unique_ptr<OutputHead>> Create(const ModelConfig& config,
                                                            const ModelFile& file,
                                                            Compute& compute);
  // hidden: [n, d_model]; logits: [n, vocab]. Borrowed. A row of logits depends on its row of
  // hidden alone.
  void Logits(ConstMatrixRef hidden, MatrixRef logits);

 private:
  OutputHead(const ModelConfig& config, std::shared_ptr<const PackedTensor> weight,
             std::vector<float> norm, Compute& compute);

  const ModelConfig config_;
  const std::shared_ptr<const PackedTensor> weight_;
  const std::vector<float> norm_;
  Compute& compute_;
  Linear linear_;
  std::vector<float> normed_;  // scratch
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_EMBEDDING_H_
