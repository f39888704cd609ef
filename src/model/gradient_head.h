// The output head's part of the backward pass.
#ifndef EFEDLLM_MODEL_GRADIENT_HEAD_H_
#define EFEDLLM_MODEL_GRADIENT_HEAD_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/random.h"
#include "layers/compute.h"
#include "layers/linear.h"
#include "model/gradient_weights.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/tensor_loader.h"
#include "tensor/matrix.h"

namespace efedllm {

// A row's source of draws, by its number.
Random DrawsOfRow(uint64_t seed, uint64_t row);
// A token drawn from p, which sums to 1.
size_t DrawToken(absl::Span<const float> p, Random& random);

// One call at a time.
class HeadGradient {
 public:
  // All borrowed.
  static absl::StatusOr<HeadGradient> Create(const ModelFile& file, const ModelConfig& config,
                                             Compute& compute);

  // Draws a token for each row of the head's input, several times, and fills in d log p(token) /
  // d input. inputs: [rows, d_model]; gradients: as many of the same shape as there are draws. What
  // is drawn for a row depends on seed and its number, first_row + its place (DrawsOfRow).
  absl::Status Backward(ConstMatrixRef inputs, uint64_t seed, uint64_t first_row,
                        absl::Span<const MatrixRef> gradients);

 private:
  HeadGradient(const ModelFile& file, const ModelConfig& config, std::vector<StageTensor> tensors,
               Compute& compute)
      : file_(file),
        config_(config),
        norm_(tensors[0].data),
        weight_(tensors[1]),
        compute_(compute),
        linear_(compute) {}

  void Softmax(MatrixRef logits) const;
  // p · W, of p as [rows, vocab].
  absl::Status Expect(ConstMatrixRef p, MatrixRef out);
  void Draw(ConstMatrixRef inputs, size_t row, ConstMatrixRef p, ConstMatrixRef slopes,
            const float* expected, Random random, absl::Span<const MatrixRef> gradients) const;

  const ModelFile& file_;
  const ModelConfig& config_;
  const std::shared_ptr<const PackedTensor> norm_;
  const StageTensor weight_;
  Compute& compute_;
  Linear linear_;
  TransposedMatrix transposed_;  // of some rows of the weight
  int64_t loaded_ = -1;          // the first of them
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_GRADIENT_HEAD_H_
