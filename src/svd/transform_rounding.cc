#include "svd/transform_rounding.h"

#include <Eigen/LU>
#include <algorithm>
#include <cmath>

namespace efedllm {
namespace {

using Eigen::MatrixXd;

constexpr size_t kMostInt16Coefficients = 1024;
constexpr double kLargestInt8 = 127, kLargestInt16 = 32767;
constexpr int kMostFractionBits = 14;  // of int16 entries
constexpr double kMultipliers = 16;
constexpr double kFixedPoint = 2048;  // of z
constexpr double kLargestSum = 0x1p31 / 1.1;

// At least the largest singular value: the eighth root of the sum of the eighth powers of all.
double NormBound(const MatrixXd& matrix) {
  const Eigen::MatrixXf m = matrix.cast<float>();
  const Eigen::MatrixXf squares = m.transpose() * m;
  return 1.001 * std::sqrt(std::sqrt(double{(squares * squares).norm()}));
}

// What a row's transform and its inverse leave of it, at most, relative to the row: `rounded` is
// the backward matrix, and coefficients are f32.
double ResidualBound(const MatrixXd& rounded, const MatrixXd& forward, double backward_norm) {
  MatrixXd residual = rounded * forward;
  residual.diagonal().array() -= 1;
  return NormBound(residual) + 0x1p-21 * backward_norm * forward.norm();
}

}  // namespace

uint32_t EntryBytesFor(size_t coefficients) {
  return coefficients <= kMostInt16Coefficients ? 2 : 1;
}

void RoundTransform(const MatrixXd& backward, double norm, uint32_t entry_bytes,
                    BoundaryBasis& basis) {
  const Eigen::Index n = backward.cols();
  const size_t entries = static_cast<size_t>(n) * static_cast<size_t>(n);
  const double largest = backward.cwiseAbs().maxCoeff();
  const double most = entry_bytes == 1 ? kLargestInt8 : kLargestInt16;
  const double multipliers = entry_bytes == 1 ? kMultipliers : 1;
  const int exponent =
      std::clamp(static_cast<int>(std::ceil(std::log2(largest / (most * multipliers)))),
                 entry_bytes == 1 ? -30 : -kMostFractionBits, 0);
  basis.backward_scale = static_cast<float>(std::exp2(exponent));

  MatrixXd rounded(n, n);
  basis.backward = {entry_bytes, std::vector<int16_t>(entries)};
  basis.forward = {2, std::vector<int16_t>(entries)};
  for (Eigen::Index j = 0; j < n; ++j) {
    const double row_largest = backward.col(j).cwiseAbs().maxCoeff();
    const double multiplier =
        std::clamp(std::ceil(row_largest / (most * basis.backward_scale)), 1.0, multipliers);
    basis.multiplier.push_back(static_cast<uint16_t>(multiplier));
    for (Eigen::Index i = 0; i < n; ++i) {
      const double entry = std::clamp(
          std::nearbyint(backward(i, j) / (multiplier * basis.backward_scale)), -most, most);
      basis.backward.values[static_cast<size_t>(j * n + i)] = static_cast<int16_t>(entry);
      rounded(i, j) = entry * multiplier * basis.backward_scale;
    }
  }

  MatrixXd forward = rounded.partialPivLu().inverse();
  const double length = kFixedPoint * std::sqrt(static_cast<double>(n));
  for (Eigen::Index j = 0; j < n; ++j) {
    // Sums of a row's z must stay within int32.
    const double scale = std::max({forward.row(j).cwiseAbs().maxCoeff() / kLargestInt16,
                                   forward.row(j).norm() * length / kLargestSum, 1e-30});
    basis.forward_scale.push_back(static_cast<float>(scale));
    for (Eigen::Index i = 0; i < n; ++i) {
      const double entry = std::nearbyint(forward(j, i) / basis.forward_scale.back());
      basis.forward.values[static_cast<size_t>(j * n + i)] = static_cast<int16_t>(entry);
      forward(j, i) = entry * basis.forward_scale.back();
    }
  }
  const double backward_norm = norm + NormBound(rounded - backward);
  basis.backward_norm = static_cast<float>(backward_norm);
  basis.forward_residual = static_cast<float>(ResidualBound(rounded, forward, backward_norm));
}

}  // namespace efedllm
