// A weight matrix as two thin factors, with the least loss for the inputs that it really sees.
//
// W: [m, n], y = W·x. G: [n, n], the second moments of its inputs, E[x·xᵀ]. Replacing W by W' costs
// the outputs E‖(W - W')·x‖² = tr((W - W')·G·(W - W')ᵀ). Among all matrices of rank r, that is
// least for W' = U_r·U_rᵀ·W, U_r the r leading eigenvectors of W·G·Wᵀ (the covariance of the
// outputs), and then is the sum of the other eigenvalues: what ASVD (arXiv 2312.05821) and SVD-LLM
// (arXiv 2403.07378, theorem 3.2) come to by whitening with a root of G, without inverting it. With
// G = I it is the plain truncated SVD. Pure functions; f64.
#ifndef EFEDLLM_SVD_FACTORIZATION_H_
#define EFEDLLM_SVD_FACTORIZATION_H_

#include <Eigen/Dense>

#include "absl/status/statusor.h"
#include "common/thread_team.h"

namespace efedllm {

// tr(D·G·Dᵀ): what outputs lose by a change D of the weights. D: [m, n]; G: [n, n].
double OutputLoss(const Eigen::Ref<const Eigen::MatrixXd>& change,
                  const Eigen::Ref<const Eigen::MatrixXd>& gram, ThreadTeam& team);

// W ≈ b·a, of any rank up to rank(): the first columns of b with the first rows of a. What lies
// between them, a·x, has the variances 'energy', falling. The scale of a pair of column and row is
// such that both have a part of it: the quantization of neither suffers more.
struct Factorization {
  Eigen::MatrixXd b;       // [m, rank]
  Eigen::MatrixXd a;       // [rank, n]
  Eigen::VectorXd energy;  // [rank]: what each pair adds to the outputs' E‖W·x‖², if G is given
  Eigen::VectorXd loss;    // [rank + 1]: OutputLoss of W - b·a with that many pairs; falling

  Eigen::Index rank() const { return energy.size(); }
};

// The best factors for inputs of these second moments. gram: symmetric, no negative eigenvalues.
// max_rank: of the result, which also is at most min(m, n). InvalidArgument: shapes that don't go
// together, or values that are not finite; Internal: no convergence.
absl::StatusOr<Factorization> Factorize(const Eigen::Ref<const Eigen::MatrixXd>& w,
                                        const Eigen::Ref<const Eigen::MatrixXd>& gram,
                                        Eigen::Index max_rank, ThreadTeam& team);

// The plain truncated SVD of W, which is best for no inputs in particular; its `loss` is for those
// of gram.
absl::StatusOr<Factorization> FactorizePlainly(const Eigen::Ref<const Eigen::MatrixXd>& w,
                                               const Eigen::Ref<const Eigen::MatrixXd>& gram,
                                               Eigen::Index max_rank, ThreadTeam& team);

// What changes of the factors cost on top of `loss`, with so many pairs ([rank + 1]): b and a as
// they were rounded, in f's shapes. To first order in the changes, of which a's and b's are
// independent.
Eigen::VectorXd RoundingLoss(const Factorization& f, const Eigen::Ref<const Eigen::MatrixXd>& b,
                             const Eigen::Ref<const Eigen::MatrixXd>& a,
                             const Eigen::Ref<const Eigen::MatrixXd>& gram, ThreadTeam& team);

}  // namespace efedllm

#endif  // EFEDLLM_SVD_FACTORIZATION_H_
