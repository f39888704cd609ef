// Singular values and eigenvectors of dense matrices, for the offline linear algebra: calibration
// and the compression of weights. All in f64. Results don't depend on the number of threads.
#ifndef EFEDLLM_SVD_DECOMPOSITION_H_
#define EFEDLLM_SVD_DECOMPOSITION_H_

#include <Eigen/Dense>
#include <cstdint>

#include "absl/status/statusor.h"
#include "common/thread_team.h"

namespace efedllm {

// a ≈ u · diag(values) · vᵀ. a: [m, n]. Columns of u and v are orthonormal.
struct ThinSvd {
  Eigen::MatrixXd u;       // [m, r]
  Eigen::VectorXd values;  // [r], falling, none negative
  Eigen::MatrixXd v;       // [n, r]

  Eigen::Index rank() const { return values.size(); }
  Eigen::MatrixXd Product() const { return u * values.asDiagonal() * v.transpose(); }
};

// All min(m, n) singular triples, by bidiagonalization and divide and conquer (Gu and Eisenstat
// 1995). Takes some 20·m·n·min(m, n) operations on the caller's thread. InvalidArgument: a is
// empty, or has values that are not finite; Internal: no convergence.
absl::StatusOr<ThinSvd> ExactSvd(const Eigen::Ref<const Eigen::MatrixXd>& a);

// Randomized algorithms after Halko, Martinsson and Tropp, "Finding structure with randomness"
// (arXiv 0909.4061).
struct RandomizedSvdOptions {
  // Columns beyond the wanted rank that the range is sought with: section 4.2 has 5 to 10, theorem
  // 10.6 what they buy.
  int oversampling = 10;
  // Multiplications with a·aᵀ, with QR between them (algorithm 4.4): the error of a spectrum that
  // falls slowly shrinks by the power 1 / (2·iterations + 1) (corollary 10.10).
  int power_iterations = 2;
  uint64_t seed = 1;  // the same seed, the same bits
};

// The leading min(rank, m, n) singular triples: algorithms 4.4 and 5.1. rank > 0. InvalidArgument:
// as ExactSvd. Takes some 4·m·n·(rank + oversampling)·(1 + power_iterations) operations.
absl::StatusOr<ThinSvd> RandomizedSvd(const Eigen::Ref<const Eigen::MatrixXd>& a, Eigen::Index rank,
                                      const RandomizedSvdOptions& options, ThreadTeam& team);

// The fewest leading triples with ‖a - u·diag(values)·vᵀ‖ ≤ tolerance·‖a‖ (Frobenius), but no more
// than max_rank: a range that grows by blocks until its residual, which is computed and not
// estimated, is small enough (section 4.4, in the blocked form of Martinsson and Voronin, arXiv
// 1503.07157, figure 2), then algorithm 5.1. A tolerance of 0 gives all max_rank. Keeps a copy of
// a. InvalidArgument: as ExactSvd.
absl::StatusOr<ThinSvd> AdaptiveSvd(const Eigen::Ref<const Eigen::MatrixXd>& a, double tolerance,
                                    Eigen::Index max_rank, const RandomizedSvdOptions& options,
                                    ThreadTeam& team);

// a = vectors · diag(values) · vectorsᵀ.
struct SymmetricEigen {
  Eigen::VectorXd values;   // [n], falling
  Eigen::MatrixXd vectors;  // [n, n], orthonormal columns
};

// Of a symmetric matrix (its lower triangle is read), such as a Gram matrix, by tridiagonalization
// and implicit QR. A Gram matrix has no negative eigenvalues; rounding may show some of some
// 1e-16 of the largest. InvalidArgument: not square, empty, or not finite; Internal: no
// convergence.
absl::StatusOr<SymmetricEigen> EigenOfSymmetric(const Eigen::Ref<const Eigen::MatrixXd>& a);

// a · b over the team's threads.
Eigen::MatrixXd ParallelProduct(const Eigen::Ref<const Eigen::MatrixXd>& a,
                                const Eigen::Ref<const Eigen::MatrixXd>& b, ThreadTeam& team);

}  // namespace efedllm

#endif  // EFEDLLM_SVD_DECOMPOSITION_H_
