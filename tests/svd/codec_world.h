// Synthetic activations with a known spectrum, and the basis that is calibrated on them.
#ifndef EFEDLLM_TESTS_SVD_CODEC_WORLD_H_
#define EFEDLLM_TESTS_SVD_CODEC_WORLD_H_

#include <Eigen/Core>
#include <Eigen/QR>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/random.h"
#include "svd/basis_builder.h"
#include "svd/boundary_basis.h"
#include "svd/codec.h"
#include "tensor/matrix.h"

namespace efedllm {

inline absl::Span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

inline double NormalNumber(Random& random) {
  return std::sqrt(-2 * std::log(1 - random.Uniform())) *
         std::cos(6.283185307179586 * random.Uniform());
}

// Normally distributed rows whose principal directions are random and have standard deviations
// that fall from one to the next.
class GaussianSource {
 public:
  GaussianSource(size_t d, double fall, uint64_t seed) : random_(seed) {
    const auto n = static_cast<Eigen::Index>(d);
    Eigen::MatrixXd normal(n, n);
    for (double& value : normal.reshaped()) value = NormalNumber(random_);
    directions_ = Eigen::HouseholderQR<Eigen::MatrixXd>(normal).householderQ();
    sigma_ = Eigen::VectorXd(n);
    for (Eigen::Index j = 0; j < n; ++j) {
      sigma_(j) = std::exp2(-fall * static_cast<double>(j) / static_cast<double>(n));
    }
    sigma_ /= std::sqrt(sigma_.squaredNorm() / static_cast<double>(n));
  }

  size_t d() const { return static_cast<size_t>(sigma_.size()); }
  const Eigen::VectorXd& sigma() const { return sigma_; }  // falling, of mean square 1

  Matrix Rows(size_t count) {
    Matrix rows(count, d());
    for (size_t r = 0; r < count; ++r) {
      Eigen::VectorXd coefficients(sigma_.size());
      for (Eigen::Index j = 0; j < sigma_.size(); ++j) {
        coefficients(j) = sigma_(j) * NormalNumber(random_);
      }
      const Eigen::VectorXd row = directions_ * coefficients;
      for (size_t i = 0; i < d(); ++i) {
        rows.row(r)[i] = static_cast<float>(row(static_cast<Eigen::Index>(i)));
      }
    }
    return rows;
  }

 private:
  Random random_;
  Eigen::MatrixXd directions_;
  Eigen::VectorXd sigma_;
};

inline std::shared_ptr<const BoundaryBasis> BasisOf(Matrix rows, Eigen::MatrixXd fisher = {}) {
  absl::StatusOr<BoundaryBasis> basis = BuildBasis({1, std::move(rows), std::move(fisher)});
  if (!basis.ok()) std::abort();
  return std::make_shared<const BoundaryBasis>(*std::move(basis));
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_SVD_CODEC_WORLD_H_
