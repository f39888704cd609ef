#include "svd/gram.h"

#include <algorithm>

#include "common/check.h"

namespace efedllm {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;

// Rows that are multiplied at once.
constexpr Index kBlockRows = 128;
// Of the result: a tile and the two strips of rows that make it stay in the second-level cache.
constexpr Index kTile = 128;

}  // namespace

GramAccumulator::GramAccumulator(size_t dim, ThreadTeam& team)
    : team_(team),
      sum_(MatrixXd::Zero(static_cast<Index>(dim), static_cast<Index>(dim))),
      buffer_(static_cast<Index>(dim), kBlockRows) {}

void GramAccumulator::Add(ConstMatrixRef rows) {
  CHECK(rows.cols == dim());
  for (size_t r = 0; r < rows.rows; ++r) {
    const Eigen::Map<const Eigen::VectorXf> row(rows.row(r), sum_.rows());
    buffer_.col(buffered_) = row.cast<double>();
    if (++buffered_ == kBlockRows) Flush();
  }
  rows_ += rows.rows;
}

void GramAccumulator::Flush() {
  const Index tiles = (sum_.rows() + kTile - 1) / kTile;
  team_.ParallelFor(static_cast<size_t>(tiles * tiles), [&](size_t chunk) {
    const Index i = static_cast<Index>(chunk) / tiles * kTile;
    const Index j = static_cast<Index>(chunk) % tiles * kTile;
    if (i < j) return;
    const Index height = std::min(kTile, sum_.rows() - i), width = std::min(kTile, sum_.rows() - j);
    sum_.block(i, j, height, width).noalias() +=
        buffer_.block(i, 0, height, buffered_) * buffer_.block(j, 0, width, buffered_).transpose();
  });
  buffered_ = 0;
}

MatrixXd GramAccumulator::Sum() {
  MatrixXd whole = sum_;
  // What is buffered is added to the copy, so that a look doesn't change where later blocks begin.
  // Eigen divides by the number of columns.
  if (buffered_ > 0) {
    whole.selfadjointView<Eigen::Lower>().rankUpdate(buffer_.leftCols(buffered_));
  }
  return whole.selfadjointView<Eigen::Lower>();
}

MatrixXd GramAccumulator::Mean() {
  return Sum() / static_cast<double>(std::max<uint64_t>(1, rows_));
}

}  // namespace efedllm
