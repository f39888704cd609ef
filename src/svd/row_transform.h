// Rows of activations to quantized coefficients and back, at one setting (docs/numerics.md,
// "Codecs").
#ifndef EFEDLLM_SVD_ROW_TRANSFORM_H_
#define EFEDLLM_SVD_ROW_TRANSFORM_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "svd/boundary_basis.h"
#include "svd/codec.h"
#include "svd/kernels/codec_kernels.h"
#include "svd/packed_matrix.h"
#include "tensor/matrix.h"

namespace efedllm {

// The dimensions that are not massive, in order.
std::vector<uint32_t> KeptDimensions(const BoundaryBasis& basis);

// Quantized rows; also the memory that the next ones use again.
struct QuantizedRows {
  size_t stride = 0;       // of q: coefficients and padding
  std::vector<int16_t> q;  // [rows][stride], 0 from the coder's count on
  // nullopt: the row's numbers are beyond what can be coded; its q are 0.
  std::vector<std::optional<uint8_t>> scale;
  // Of each row with a scale: at least its squared error in all but the massive dimensions.
  std::vector<double> most_error;
};

class RowTransform {
 public:
  // forward, backward: of kKlt, borrowed. count: leading coefficients that matter.
  RowTransform(const BoundaryBasis& basis, CodecSetting setting, size_t count,
               const PackedMatrix* forward, const PackedMatrix* backward,
               const CodecKernels& kernels);

  void Quantize(ConstMatrixRef rows, QuantizedRows& result);
  // All but the massive dimensions of out. scales: one for each row; false: coefficients that no
  // encoder makes.
  bool Reconstruct(const int16_t* q, size_t stride, const uint8_t* scales, MatrixRef out);

 private:
  bool ScaleRow(const float* row, std::optional<uint8_t>& scale);
  void RoundRow(bool fits, size_t r, QuantizedRows& result);
  bool FitsMultipliers() const;
  double MostError(double square, uint8_t scale) const;
  bool Expand(const int16_t* q, int16_t* multiples) const;

  const BoundaryBasis& basis_;
  const CodecSetting setting_;
  const size_t n_, count_, padded_;
  const PackedMatrix* const forward_;
  const PackedMatrix* const backward_;
  const CodecKernels& kernels_;
  std::vector<uint32_t> kept_;
  std::vector<float> kept_mean_;
  double mean_norm_ = 0;
  int32_t largest_multiplier_ = 1;
  std::vector<float> coefficient_factor_;  // of kKlt: from a sum to parts of half steps

  std::vector<float> centered_;
  std::vector<int16_t> fixed_;
  std::vector<int32_t> sums_;
  std::vector<int32_t> half_steps_, trellis_errors_;  // of a row
  std::vector<uint8_t> trellis_choices_;
};

}  // namespace efedllm

#endif  // EFEDLLM_SVD_ROW_TRANSFORM_H_
