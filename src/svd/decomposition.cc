#include "svd/decomposition.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/random.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using MatrixView = Eigen::Ref<const MatrixXd>;

// Columns of a product that one chunk computes. Fixed, so that the bits don't depend on threads.
constexpr Index kChunkColumns = 64;
// By which an adaptive range grows.
constexpr Index kRangeBlock = 32;

absl::Status CheckInput(const MatrixView& a) {
  if (a.size() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a matrix of ", a.rows(), " x ", a.cols(), " has no decomposition"));
  }
  if (!a.allFinite()) {
    return absl::InvalidArgumentError("the matrix to decompose has values that are not finite");
  }
  return absl::OkStatus();
}

// Independent standard normal numbers (Box and Muller).
MatrixXd Gaussian(Index rows, Index cols, Random& random) {
  MatrixXd out(rows, cols);
  for (Index i = 0; i < out.size(); i += 2) {
    const double radius = std::sqrt(-2 * std::log(1 - random.Uniform()));
    const double angle = 2 * M_PI * random.Uniform();
    out.data()[i] = radius * std::cos(angle);
    if (i + 1 < out.size()) out.data()[i + 1] = radius * std::sin(angle);
  }
  return out;
}

// Orthonormal columns that span those of y (and, where these are dependent, more).
MatrixXd Orthonormal(const MatrixXd& y) {
  const Eigen::HouseholderQR<MatrixXd> qr(y);
  return qr.householderQ() * MatrixXd::Identity(y.rows(), std::min(y.rows(), y.cols()));
}

// Algorithm 4.4: orthonormal columns that nearly span a's leading left singular vectors.
MatrixXd FindRange(const MatrixView& a, Index columns, int power_iterations, Random& random,
                   ThreadTeam& team) {
  MatrixXd q = Orthonormal(ParallelProduct(a, Gaussian(a.cols(), columns, random), team));
  for (int i = 0; i < power_iterations; ++i) {
    const MatrixXd back = Orthonormal(ParallelProduct(a.transpose(), q, team));
    q = Orthonormal(ParallelProduct(a, back, team));
  }
  return q;
}

ThinSvd Leading(ThinSvd svd, Index rank) {
  if (rank >= svd.rank()) return svd;
  return {svd.u.leftCols(rank), svd.values.head(rank), svd.v.leftCols(rank)};
}

// Algorithm 5.1: the SVD of q·b, whose q has orthonormal columns.
absl::StatusOr<ThinSvd> SvdInRange(const MatrixXd& q, const MatrixXd& b, ThreadTeam& team) {
  // b is wide: its SVD costs less after a QR of its transpose.
  const Eigen::HouseholderQR<MatrixXd> qr(b.transpose());
  const Index n = std::min(b.rows(), b.cols());
  const MatrixXd r = qr.matrixQR().topRows(n).triangularView<Eigen::Upper>();
  ASSIGN_OR_RETURN(ThinSvd small, ExactSvd(r.transpose()));
  small.u = ParallelProduct(q, small.u, team);
  small.v = qr.householderQ() *
            (MatrixXd(b.cols(), n) << small.v, MatrixXd::Zero(b.cols() - n, n)).finished();
  return small;
}

// The fewest leading values of svd so that what is left out and `residual` stay below `allowed`;
// all of them squared norms.
Index FewestValues(const VectorXd& values, double residual, double allowed) {
  Index rank = values.size();
  while (rank > 0 && residual + values[rank - 1] * values[rank - 1] <= allowed) {
    residual += values[rank - 1] * values[rank - 1];
    --rank;
  }
  return rank;
}

}  // namespace

MatrixXd ParallelProduct(const MatrixView& a, const MatrixView& b, ThreadTeam& team) {
  CHECK(a.cols() == b.rows());
  MatrixXd out(a.rows(), b.cols());
  const Index chunks = (b.cols() + kChunkColumns - 1) / kChunkColumns;
  team.ParallelFor(static_cast<size_t>(chunks), [&](size_t chunk) {
    const Index first = static_cast<Index>(chunk) * kChunkColumns;
    const Index columns = std::min(kChunkColumns, b.cols() - first);
    out.middleCols(first, columns).noalias() = a * b.middleCols(first, columns);
  });
  return out;
}

absl::StatusOr<ThinSvd> ExactSvd(const MatrixView& a) {
  RETURN_IF_ERROR(CheckInput(a));
  const Eigen::BDCSVD<MatrixXd> svd(a, Eigen::ComputeThinU | Eigen::ComputeThinV);
  if (svd.info() != Eigen::Success) {
    return absl::InternalError(absl::StrCat("the singular value decomposition of a ", a.rows(),
                                            " x ", a.cols(), " matrix did not converge"));
  }
  return ThinSvd{svd.matrixU(), svd.singularValues(), svd.matrixV()};
}

absl::StatusOr<ThinSvd> RandomizedSvd(const MatrixView& a, Index rank,
                                      const RandomizedSvdOptions& options, ThreadTeam& team) {
  CHECK(rank > 0 && options.oversampling >= 0 && options.power_iterations >= 0);
  RETURN_IF_ERROR(CheckInput(a));
  Random random(options.seed);
  const Index columns = std::min(rank + options.oversampling, std::min(a.rows(), a.cols()));
  const MatrixXd q = FindRange(a, columns, options.power_iterations, random, team);
  ASSIGN_OR_RETURN(ThinSvd svd, SvdInRange(q, ParallelProduct(q.transpose(), a, team), team));
  return Leading(std::move(svd), rank);
}

absl::StatusOr<ThinSvd> AdaptiveSvd(const MatrixView& a, double tolerance, Index max_rank,
                                    const RandomizedSvdOptions& options, ThreadTeam& team) {
  CHECK(tolerance >= 0 && max_rank > 0 && options.power_iterations >= 0);
  RETURN_IF_ERROR(CheckInput(a));
  Random random(options.seed);
  const Index full = std::min(a.rows(), a.cols());
  const Index limit = std::min(max_rank + options.oversampling, full);
  const double allowed = tolerance * tolerance * a.squaredNorm();
  MatrixXd residual = a;
  MatrixXd q(a.rows(), 0), b(0, a.cols());
  while (q.cols() < limit && residual.squaredNorm() > allowed) {
    const Index columns = std::min(kRangeBlock, limit - q.cols());
    MatrixXd block = FindRange(residual, columns, options.power_iterations, random, team);
    // The residual has lost digits where it is small; without this, blocks would overlap.
    block = Orthonormal(block - q * (q.transpose() * block));
    const MatrixXd part = ParallelProduct(block.transpose(), residual, team);
    residual -= ParallelProduct(block, part, team);
    q.conservativeResize(Eigen::NoChange, q.cols() + columns);
    q.rightCols(columns) = block;
    b.conservativeResize(b.rows() + columns, Eigen::NoChange);
    b.bottomRows(columns) = part;
  }
  if (q.cols() == 0) return ThinSvd{MatrixXd(a.rows(), 0), VectorXd(0), MatrixXd(a.cols(), 0)};
  ASSIGN_OR_RETURN(ThinSvd svd, SvdInRange(q, b, team));
  const Index rank = FewestValues(svd.values, residual.squaredNorm(), allowed);
  return Leading(std::move(svd), std::min(rank, max_rank));
}

absl::StatusOr<SymmetricEigen> EigenOfSymmetric(const MatrixView& a) {
  RETURN_IF_ERROR(CheckInput(a));
  if (a.rows() != a.cols()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a ", a.rows(), " x ", a.cols(), " matrix is not symmetric"));
  }
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(a);
  if (solver.info() != Eigen::Success) {
    return absl::InternalError(absl::StrCat("the eigenvalues of a ", a.rows(), " x ", a.cols(),
                                            " matrix did not converge"));
  }
  return SymmetricEigen{solver.eigenvalues().reverse(), solver.eigenvectors().rowwise().reverse()};
}

}  // namespace efedllm
