#include "svd/basis_builder.h"

#include <Eigen/Eigenvalues>
#include <Eigen/LU>
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "svd/codec_grid.h"
#include "svd/kernels/codec_kernels.h"
#include "svd/magnitude_tables.h"
#include "svd/row_transform.h"
#include "svd/transform_rounding.h"

namespace efedllm {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using RowsXd = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// A dimension whose variance is that many times the median's is massive...
constexpr double kMassiveVariance = 50;
// ... but no more of them than one in so many.
constexpr size_t kLeastPerMassive = 16;
// Of the Fisher matrix's mean eigenvalue: what each direction counts at least.
constexpr double kLeastFisher = 0.1;
constexpr int16_t kLeastLogSigma = -32 * 64;
constexpr size_t kTableValues = 1 << 20;  // that the tables are fitted to
// Rows may be so much larger than the sample's: a quarter of an octave.
constexpr int kScaleMargin = 2;

absl::Status CheckSample(const BoundarySample& sample) {
  const Eigen::Index d = static_cast<Eigen::Index>(sample.rows.cols());
  if (sample.rows.rows() == 0 || d == 0) {
    return absl::InvalidArgumentError("a boundary's sample has no rows");
  }
  for (const float value : sample.rows.ref().span()) {
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError("a boundary's sample is not finite");
    }
  }
  if (sample.fisher.size() == 0) return absl::OkStatus();
  if (sample.fisher.rows() != d || sample.fisher.cols() != d || !sample.fisher.allFinite()) {
    return absl::InvalidArgumentError("a boundary's Fisher matrix does not fit its sample");
  }
  return absl::OkStatus();
}

// Shares of the total, falling.
std::vector<float> Shares(VectorXd energies) {
  energies = energies.cwiseMax(0.0);
  const double total = std::max(energies.sum(), 1e-300);
  std::vector<float> shares;
  shares.reserve(static_cast<size_t>(energies.size()));
  for (const double energy : energies) shares.push_back(static_cast<float>(energy / total));
  std::sort(shares.rbegin(), shares.rend());
  return shares;
}

MatrixXd SecondMoments(const RowsXd& z) {
  MatrixXd moments = MatrixXd::Zero(z.cols(), z.cols());
  moments.selfadjointView<Eigen::Lower>().rankUpdate(z.transpose(),
                                                     1.0 / static_cast<double>(z.rows()));
  return moments.selfadjointView<Eigen::Lower>();
}

// As the rows are if no dimension is massive.
std::vector<float> SpectrumWithMassive(ConstMatrixRef rows) {
  RowsXd z =
      Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
          rows.data, static_cast<Eigen::Index>(rows.rows), static_cast<Eigen::Index>(rows.cols))
          .cast<double>();
  z.rowwise() -= z.colwise().mean().eval();
  z = (z.rowwise().norm().cwiseMax(1e-30).cwiseInverse().asDiagonal() * z).eval();
  return Shares(Eigen::SelfAdjointEigenSolver<MatrixXd>(SecondMoments(z), Eigen::EigenvaluesOnly)
                    .eigenvalues());
}

// The rows' z, and how often each scale came up.
RowsXd NormalizedRows(ConstMatrixRef rows, const RowNormalizer& normalizer,
                      const std::vector<uint32_t>& kept, std::vector<uint8_t>& scales) {
  RowsXd z(static_cast<Eigen::Index>(rows.rows), static_cast<Eigen::Index>(kept.size()));
  for (size_t r = 0; r < rows.rows; ++r) {
    const float scale = normalizer.Scale({rows.row(r), rows.cols});
    scales.push_back(NearestScale(scale).value_or(255));
    for (size_t i = 0; i < kept.size(); ++i) {
      z(static_cast<Eigen::Index>(r), static_cast<Eigen::Index>(i)) =
          (static_cast<double>(rows.row(r)[kept[i]]) - normalizer.mean()[kept[i]]) / scale;
    }
  }
  return z;
}

void FitScales(const std::vector<uint8_t>& scales, BoundaryBasis& basis) {
  const auto [least, most] = std::minmax_element(scales.begin(), scales.end());
  basis.largest_scale = ScaleOf(static_cast<uint8_t>(std::min(*most + kScaleMargin, 255)));
  const int first = std::max(*least - 1, 0), last = std::min(*most + 1, 255);
  std::vector<double> counts(static_cast<size_t>(last - first) + 1, 0.5);
  for (const uint8_t scale : scales) ++counts[scale - static_cast<size_t>(first)];
  const double total = std::accumulate(counts.begin(), counts.end(), 1.0);
  basis.first_scale = static_cast<uint8_t>(first);
  // Each has one at least, and some are left for scales that never came.
  const double unit = static_cast<double>(kProbabilityOne - counts.size() - 16);
  for (const double count : counts) {
    basis.scale_frequency.push_back(static_cast<uint16_t>(1 + std::floor(unit * count / total)));
  }
}

int16_t LogSigma(double variance) {
  if (!(variance > 0)) return kLeastLogSigma;
  return static_cast<int16_t>(
      std::clamp(std::lrint(32 * std::log2(variance)), long{kLeastLogSigma}, 1024L));
}

void SetLogSigma(const VectorXd& variances, CoefficientModel& model) {
  for (const double variance : variances) model.log_sigma.push_back(LogSigma(variance));
}

// F^(1/2) and its inverse, regularized, of determinant 1.
struct Metric {
  MatrixXd root, inverse;
  double inverse_norm = 1;  // its largest singular value
};
Metric MetricOf(const MatrixXd& fisher, const std::vector<uint32_t>& kept) {
  const Eigen::Index n = static_cast<Eigen::Index>(kept.size());
  if (fisher.size() == 0) return {MatrixXd::Identity(n, n), MatrixXd::Identity(n, n)};
  MatrixXd part(n, n);
  for (Eigen::Index i = 0; i < n; ++i) {
    for (Eigen::Index j = 0; j < n; ++j) {
      const Eigen::Index row = kept[static_cast<size_t>(i)], col = kept[static_cast<size_t>(j)];
      part(i, j) = (fisher(row, col) + fisher(col, row)) / 2;
    }
  }
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(part);
  VectorXd weights = solver.eigenvalues().cwiseMax(0.0);
  const double mean = weights.mean();
  if (!(mean > 0)) return {MatrixXd::Identity(n, n), MatrixXd::Identity(n, n)};
  weights = (weights / mean).array() + kLeastFisher;
  const VectorXd logs = weights.array().log() / 2;
  const VectorXd roots = (logs.array() - logs.mean()).exp();
  const MatrixXd& u = solver.eigenvectors();
  return {u * roots.asDiagonal() * u.transpose(),
          u * roots.cwiseInverse().asDiagonal() * u.transpose(), 1 / roots.minCoeff()};
}

}  // namespace

RowNormalizer RowNormalizer::Fit(ConstMatrixRef rows) {
  RowNormalizer result;
  const size_t d = rows.cols;
  std::vector<double> sum(d, 0.0), squares(d, 0.0), variance(d);
  for (size_t r = 0; r < rows.rows; ++r) {
    for (size_t i = 0; i < d; ++i) sum[i] += rows.row(r)[i];
  }
  const double n = static_cast<double>(rows.rows);
  for (size_t i = 0; i < d; ++i) result.mean_.push_back(static_cast<float>(sum[i] / n));
  for (size_t r = 0; r < rows.rows; ++r) {
    for (size_t i = 0; i < d; ++i) {
      const double centered = static_cast<double>(rows.row(r)[i]) - result.mean_[i];
      squares[i] += centered * centered;
    }
  }
  std::vector<double> ordered = squares;
  std::sort(ordered.begin(), ordered.end());
  double least = kMassiveVariance * ordered[d / 2];
  if (d / kLeastPerMassive < d) least = std::max(least, ordered[d - 1 - d / kLeastPerMassive]);
  for (size_t i = 0; i < d; ++i) {
    if (!(squares[i] > least)) continue;
    result.massive_.push_back(static_cast<uint32_t>(i));
    result.mean_[i] = 0;
  }
  return result;
}

float RowNormalizer::Scale(absl::Span<const float> row) const {
  std::vector<float> centered;
  centered.reserve(row.size());
  auto massive = massive_.begin();
  for (size_t i = 0; i < row.size(); ++i) {
    if (massive != massive_.end() && *massive == i) {
      ++massive;
    } else {
      centered.push_back(row[i] - mean_[i]);
    }
  }
  return ScaleOf(
      NearestScale(ScalarCodecKernels().root_mean_square(centered.data(), centered.size()))
          .value_or(255));
}

absl::StatusOr<BoundaryBasis> BuildBasis(const BoundarySample& sample) {
  if (absl::Status status = CheckSample(sample); !status.ok()) return status;
  const ConstMatrixRef rows = sample.rows.ref();
  const RowNormalizer normalizer = RowNormalizer::Fit(rows);
  BoundaryBasis basis;
  basis.boundary = sample.boundary;
  basis.d_model = static_cast<uint32_t>(rows.cols);
  basis.massive = normalizer.massive();
  basis.mean = normalizer.mean();
  const std::vector<uint32_t> kept = KeptDimensions(basis);
  std::vector<uint8_t> scales;
  const RowsXd z = NormalizedRows(rows, normalizer, kept, scales);
  FitScales(scales, basis);

  const MatrixXd moments = SecondMoments(z);
  const Metric metric = MetricOf(sample.fisher, kept);
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(metric.root * moments * metric.root);
  // Falling.
  const MatrixXd q = solver.eigenvectors().rowwise().reverse();
  basis.spectrum_with_massive = SpectrumWithMassive(rows);
  basis.spectrum = Shares(
      Eigen::SelfAdjointEigenSolver<MatrixXd>(moments, Eigen::EigenvaluesOnly).eigenvalues());
  SetLogSigma(moments.diagonal(), basis.scalar);
  SetLogSigma(solver.eigenvalues().reverse(), basis.klt);
  const MatrixXd backward = metric.inverse * q;
  basis.klt.noise_gain =
      static_cast<float>(backward.norm() / std::sqrt(static_cast<double>(kept.size())));
  RoundTransform(backward, metric.inverse_norm, EntryBytesFor(kept.size()), basis);

  const Eigen::Index fitted = std::min<Eigen::Index>(
      z.rows(), static_cast<Eigen::Index>(std::max<size_t>(1, kTableValues / kept.size())));
  const Eigen::Index stride = z.rows() / fitted;
  RowsXd some(fitted, z.cols());
  for (Eigen::Index r = 0; r < fitted; ++r) some.row(r) = z.row(r * stride);
  FitMagnitudeTables(some.cast<float>(), basis.scalar);
  FitMagnitudeTables((some * (metric.root * q)).cast<float>(), basis.klt);
  return basis;
}

}  // namespace efedllm
