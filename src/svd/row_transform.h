// Rows of activations to quantized coefficients and back, at one setting (docs/numerics.md,
// "Codecs").
#ifndef EFEDLLM_SVD_ROW_TRANSFORM_H_
#define EFEDLLM_SVD_ROW_TRANSFORM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "svd/boundary_basis.h"
#include "svd/codec.h"
#include "svd/kernels/codec_kernels.h"
#include "tensor/matrix.h"

namespace efedllm {

// A matrix as the projection kernels want it.
class PackedMatrix {
 public:
  // Of matrix, [n][n]: its transpose's product if `transposed`, so that inputs are its columns.
  PackedMatrix(const IntegerMatrix& matrix, size_t n, bool transposed);

  // x: rows of x_stride, of which the first `inputs` count (an odd number counts the next as well);
  // y: rows of y_stride, at least the first `outputs` of them, filled up to whole panels.
  void Project(const CodecKernels& kernels, const int16_t* x, size_t x_stride, size_t inputs,
               size_t rows, int32_t* y, size_t y_stride, size_t outputs) const;

 private:
  uint32_t entry_bytes_;
  size_t pairs_;
  std::vector<int8_t> int8_;
  std::vector<int16_t> int16_;
};

// The dimensions that are not massive, in order.
std::vector<uint32_t> KeptDimensions(const BoundaryBasis& basis);

// Quantized rows; also the memory that the next ones use again.
struct QuantizedRows {
  size_t stride = 0;       // of q: coefficients and padding
  std::vector<int16_t> q;  // [rows][stride], 0 from the coder's count on
  // nullopt: the row's numbers are beyond what can be coded; its q are 0.
  std::vector<std::optional<uint8_t>> scale;
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
  void ProjectForward(size_t rows, QuantizedRows& result);

  const BoundaryBasis& basis_;
  const CodecSetting setting_;
  const size_t n_, count_, padded_;
  const PackedMatrix* const forward_;
  const PackedMatrix* const backward_;
  const CodecKernels& kernels_;
  std::vector<uint32_t> kept_;
  std::vector<float> kept_mean_;
  std::vector<float> coefficient_factor_;  // of kKlt: from a sum to steps

  std::vector<float> centered_;
  std::vector<int16_t> fixed_;
  std::vector<int32_t> sums_;
};

}  // namespace efedllm

#endif  // EFEDLLM_SVD_ROW_TRANSFORM_H_
