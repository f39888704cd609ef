#include "svd/row_range.h"

#include <gtest/gtest.h>

#include <limits>

#include "tensor/matrix.h"

namespace efedllm {
namespace {

Matrix Rows(size_t count, float size, size_t cols = 128) {
  Matrix rows(count, cols);
  for (size_t r = 0; r < count; ++r) {
    for (size_t i = 0; i < cols; ++i) rows.row(r)[i] = (i + r) % 2 == 0 ? size : -size;
  }
  return rows;
}

TEST(RowRange, RefusesNothingWithoutABasis) {
  const RowRange range(nullptr);
  EXPECT_TRUE(range.Check(Rows(300, 1e-3f).ref()).ok());
  EXPECT_TRUE(range.Check(Rows(1, 1e18f).ref()).ok());
}

TEST(RowRange, KnowsFromABasis) {
  BoundaryBasis basis;
  basis.largest_scale = 3;
  basis.mean.assign(128, 1);
  RowRange range(&basis);
  EXPECT_TRUE(range.Check(Rows(3, 250).ref()).ok());
  EXPECT_EQ(range.Check(Rows(3, 260).ref()).code(), absl::StatusCode::kDataLoss);
}

TEST(RowRange, MassiveDimensionsAreNoMatter) {
  BoundaryBasis basis;
  basis.largest_scale = 1;
  RowRange range(&basis);
  Matrix rows = Rows(2, 1);
  rows.row(1)[3] = 1e18f;
  rows.row(1)[70] = -3e20f;
  rows.row(0)[127] = std::numeric_limits<float>::max();
  EXPECT_TRUE(range.Check(rows.ref()).ok());
}

TEST(RowRange, NothingIsTooSmall) {
  BoundaryBasis basis;
  basis.largest_scale = 1;
  RowRange range(&basis);
  EXPECT_TRUE(range.Check(Rows(2, 0).ref()).ok());
  EXPECT_TRUE(range.Check(Rows(2, 1, 5).ref()).ok());
}

}  // namespace
}  // namespace efedllm
