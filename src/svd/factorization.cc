#include "svd/factorization.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "svd/decomposition.h"

namespace efedllm {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using MatrixView = Eigen::Ref<const MatrixXd>;

// Beyond so many outputs per input, the eigenproblem on the inputs' side costs less, root of G
// included.
constexpr double kTall = 1.25;
// Few of many eigenvectors are sought at random.
constexpr Index kFewOf = 4, kManyOutputs = 128;
// Of the largest energy: what scales take the smaller ones for.
constexpr double kLeastEnergy = 1e-12;

absl::Status CheckShapes(const MatrixView& w, const MatrixView& gram) {
  if (w.size() == 0 || gram.rows() != w.cols() || gram.cols() != w.cols()) {
    return absl::InvalidArgumentError(absl::StrCat("a matrix of ", w.rows(), " x ", w.cols(),
                                                   " with second moments of ", gram.rows(), " x ",
                                                   gram.cols()));
  }
  if (w.allFinite() && gram.allFinite()) return absl::OkStatus();
  return absl::InvalidArgumentError("the weights or their inputs' moments are not finite");
}

// Σ_j x(i, j)·y(i, j) for each row i.
VectorXd RowDots(const MatrixXd& x, const MatrixXd& y) { return x.cwiseProduct(y).rowwise().sum(); }

// Leading eigenvectors of W·G·Wᵀ through those of Rᵀ·Wᵀ·W·R with G = R·Rᵀ: [m, rank], orthonormal.
absl::StatusOr<MatrixXd> TallDirections(const MatrixView& w, const MatrixView& gram, Index rank,
                                        ThreadTeam& team) {
  ASSIGN_OR_RETURN(const SymmetricEigen inputs, EigenOfSymmetric(gram));
  const MatrixXd root = inputs.vectors * inputs.values.cwiseMax(0.0).cwiseSqrt().asDiagonal();
  const MatrixXd white = ParallelProduct(w, root, team);
  ASSIGN_OR_RETURN(const SymmetricEigen eigen,
                   EigenOfSymmetric(ParallelProduct(white.transpose(), white, team)));
  const MatrixXd directions = ParallelProduct(white, eigen.vectors.leftCols(rank), team);
  // Where eigenvalues are small, squaring has cost their directions the right angle.
  const Eigen::HouseholderQR<MatrixXd> qr(directions);
  return MatrixXd(qr.householderQ() * MatrixXd::Identity(w.rows(), rank));
}

absl::StatusOr<MatrixXd> Directions(const MatrixView& w, const MatrixView& gram, Index rank,
                                    ThreadTeam& team) {
  const bool few = rank * kFewOf <= std::min(w.rows(), w.cols()) && w.rows() > kManyOutputs;
  if (!few && static_cast<double>(w.rows()) > kTall * static_cast<double>(w.cols())) {
    return TallDirections(w, gram, rank, team);
  }
  const MatrixXd outputs = ParallelProduct(w, ParallelProduct(gram, w.transpose(), team), team);
  if (few) {
    ASSIGN_OR_RETURN(ThinSvd svd, RandomizedSvd(outputs, rank, {}, team));
    return std::move(svd.u);
  }
  ASSIGN_OR_RETURN(const SymmetricEigen eigen, EigenOfSymmetric(outputs));
  return MatrixXd(eigen.vectors.leftCols(rank));
}

// From pairs whose b has orthonormal columns: energies, losses, and the scales.
Factorization Finish(MatrixXd b, MatrixXd a, const MatrixView& w, const MatrixView& gram,
                     ThreadTeam& team) {
  Factorization f;
  f.energy = RowDots(a, ParallelProduct(a, gram, team)).cwiseMax(0.0);
  const Index rank = f.energy.size();
  f.loss = VectorXd::Zero(rank + 1);
  if (rank < std::min(w.rows(), w.cols())) {
    f.loss[rank] = std::max(0.0, OutputLoss(w, gram, team) - f.energy.sum());
  }
  for (Index i = rank; i-- > 0;) f.loss[i] = f.loss[i + 1] + f.energy[i];
  const double least = std::max(kLeastEnergy * f.energy.maxCoeff(), 1e-300);
  const VectorXd scale = f.energy.cwiseMax(least).array().pow(0.25);
  f.b = b * scale.asDiagonal();
  f.a = scale.cwiseInverse().asDiagonal() * a;
  return f;
}

// Factors that are best for inputs of the moments `fitted`, with their losses for those of `gram`.
absl::StatusOr<Factorization> FactorizeFor(const MatrixView& w, const MatrixView& fitted,
                                           const MatrixView& gram, Index max_rank,
                                           ThreadTeam& team) {
  CHECK(max_rank > 0);
  RETURN_IF_ERROR(CheckShapes(w, gram));
  const Index rank = std::min({max_rank, w.rows(), w.cols()});
  ASSIGN_OR_RETURN(MatrixXd u, Directions(w, fitted, rank, team));
  MatrixXd a = ParallelProduct(u.transpose(), w, team);
  return Finish(std::move(u), std::move(a), w, gram, team);
}

}  // namespace

double OutputLoss(const MatrixView& change, const MatrixView& gram, ThreadTeam& team) {
  return std::max(0.0, RowDots(change, ParallelProduct(change, gram, team)).sum());
}

absl::StatusOr<Factorization> Factorize(const MatrixView& w, const MatrixView& gram, Index max_rank,
                                        ThreadTeam& team) {
  return FactorizeFor(w, gram, gram, max_rank, team);
}

absl::StatusOr<Factorization> FactorizePlainly(const MatrixView& w, const MatrixView& gram,
                                               Index max_rank, ThreadTeam& team) {
  // W's left singular vectors are the eigenvectors of W·Wᵀ.
  return FactorizeFor(w, MatrixXd::Identity(w.cols(), w.cols()), gram, max_rank, team);
}

VectorXd RoundingLoss(const Factorization& f, const MatrixView& b, const MatrixView& a,
                      const MatrixView& gram, ThreadTeam& team) {
  const MatrixXd change_a = a - f.a;
  const VectorXd of_a = RowDots(change_a, ParallelProduct(change_a, gram, team));
  const VectorXd of_b = (b - f.b).colwise().squaredNorm();
  const VectorXd gain = f.b.colwise().squaredNorm();  // of what lies between
  VectorXd loss = VectorXd::Zero(f.rank() + 1);
  for (Index i = 0; i < f.rank(); ++i) {
    const double variance = gain[i] > 0 ? f.energy[i] / gain[i] : 0;
    loss[i + 1] = loss[i] + std::max(0.0, of_a[i]) * gain[i] + of_b[i] * variance;
  }
  return loss;
}

}  // namespace efedllm
