// Makes a boundary's basis from a sample of its activations. Offline arithmetic in doubles: the
// result need not be the same bits everywhere, since both ends of an edge get one basis by its
// hash.
#ifndef EFEDLLM_SVD_BASIS_BUILDER_H_
#define EFEDLLM_SVD_BASIS_BUILDER_H_

#include <Eigen/Core>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "svd/boundary_basis.h"
#include "tensor/matrix.h"

namespace efedllm {

// What is taken from a row before its coefficients: the massive dimensions, the mean, the scale.
// A sample's normalizer and that of the basis which is built from it are the same.
class RowNormalizer {
 public:
  // rows: [n, d_model], n >= 1, finite.
  static RowNormalizer Fit(ConstMatrixRef rows);

  // Dimensions whose mean square is so far above the others' that they would drown a row's scale;
  // ascending.
  const std::vector<uint32_t>& massive() const { return massive_; }
  // [d_model]; 0 in the massive dimensions.
  const std::vector<float>& mean() const { return mean_; }
  // The number by which the codecs divide a row: RMS of (row - mean) over the dimensions that are
  // not massive, rounded to a grid of 8 to an octave. row: [d_model].
  float Scale(absl::Span<const float> row) const;

 private:
  std::vector<uint32_t> massive_;
  std::vector<float> mean_;
};

struct BoundarySample {
  uint32_t boundary = 0;
  Matrix rows;  // [n, d_model]: activations as they cross the boundary
  // [d_model, d_model], or 0x0 for none: E[g gᵀ], g = scale(row) · d log p(what follows) / d row,
  // the following tokens drawn from the model's own distribution. Any positive factor will do.
  Eigen::MatrixXd fisher;
};

// All of the basis but the kl of both models, which only the model can tell. The cost is that of a
// few eigenvalue problems of size d_model. InvalidArgument: no rows, numbers that are not finite,
// a fisher of another size.
absl::StatusOr<BoundaryBasis> BuildBasis(const BoundarySample& sample);

}  // namespace efedllm

#endif  // EFEDLLM_SVD_BASIS_BUILDER_H_
