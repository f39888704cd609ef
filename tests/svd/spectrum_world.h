// Matrices with a known spectrum.
#ifndef EFEDLLM_TESTS_SVD_SPECTRUM_WORLD_H_
#define EFEDLLM_TESTS_SVD_SPECTRUM_WORLD_H_

#include <Eigen/Dense>
#include <cstdint>

#include "common/random.h"

namespace efedllm {

inline Eigen::MatrixXd RandomMatrix(Eigen::Index rows, Eigen::Index cols, uint64_t seed) {
  Random random(seed);
  return Eigen::MatrixXd::NullaryExpr(rows, cols, [&] { return 2 * random.Uniform() - 1; });
}

inline Eigen::MatrixXd RandomOrthonormal(Eigen::Index rows, Eigen::Index cols, uint64_t seed) {
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(RandomMatrix(rows, cols, seed));
  return qr.householderQ() * Eigen::MatrixXd::Identity(rows, cols);
}

// values: at most min(rows, cols) of them; the others are zero.
inline Eigen::MatrixXd WithSingularValues(Eigen::Index rows, Eigen::Index cols,
                                          const Eigen::VectorXd& values, uint64_t seed) {
  return RandomOrthonormal(rows, values.size(), seed) * values.asDiagonal() *
         RandomOrthonormal(cols, values.size(), seed + 1).transpose();
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_SVD_SPECTRUM_WORLD_H_
