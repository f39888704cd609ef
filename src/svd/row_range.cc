#include "svd/row_range.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

constexpr size_t kBlocks = 16;
constexpr size_t kBlocksThatCount = 12;
// Several sums, so that the loop vectorizes.
constexpr size_t kSums = 8;

float SumOfSquares(const float* values, size_t count) {
  std::array<float, kSums> sums = {};
  const size_t whole = count / kSums * kSums;
  for (size_t i = 0; i < whole; i += kSums) {
    for (size_t s = 0; s < kSums; ++s) sums[s] += values[i + s] * values[i + s];
  }
  float sum = 0;
  for (size_t i = whole; i < count; ++i) sum += values[i] * values[i];
  for (const float one : sums) sum += one;
  return sum;
}

double SizeOf(const float* row, size_t cols) {
  const size_t block = cols / kBlocks;
  if (block == 0) return SumOfSquares(row, cols) / static_cast<float>(std::max<size_t>(cols, 1));
  std::array<float, kBlocks> sums;
  for (size_t b = 0; b < kBlocks; ++b) sums[b] = SumOfSquares(row + b * block, block);
  std::sort(sums.begin(), sums.end());
  double sum = 0;
  for (size_t b = 0; b < kBlocksThatCount; ++b) sum += static_cast<double>(sums[b]);
  return sum / static_cast<double>(kBlocksThatCount * block);
}

}  // namespace

RowRange::RowRange(const BoundaryBasis* basis) {
  if (basis == nullptr) return;
  double mean = 0;
  for (const float value : basis->mean) mean += double{value} * double{value};
  mean = std::sqrt(mean / static_cast<double>(std::max<size_t>(basis->mean.size(), 1)));
  largest_ = std::pow(mean + static_cast<double>(basis->largest_scale), 2);
}

absl::Status RowRange::Check(ConstMatrixRef rows) const {
  if (!largest_) return absl::OkStatus();
  constexpr double kMost = double{kFactor} * double{kFactor};
  for (size_t r = 0; r < rows.rows; ++r) {
    const double size = SizeOf(rows.row(r), rows.cols);
    if (size <= kMost * *largest_) continue;
    return absl::DataLossError(absl::StrCat("row ", r, " of the activations has an RMS of ",
                                            std::sqrt(size), ", and calibration had at most ",
                                            std::sqrt(*largest_)));
  }
  return absl::OkStatus();
}

}  // namespace efedllm
