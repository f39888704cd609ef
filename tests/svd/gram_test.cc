#include "svd/gram.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/random.h"
#include "spectrum_world.h"

namespace efedllm {
namespace {

Matrix RandomRows(size_t rows, size_t cols, uint64_t seed) {
  Random random(seed);
  Matrix out(rows, cols);
  for (float& value : out.ref().span()) value = static_cast<float>(random.Uniform() - 0.25);
  return out;
}

ConstMatrixRef Part(const Matrix& rows, size_t first, size_t count) {
  const ConstMatrixRef all = rows.ref();
  return {all.row(first), count, all.cols};
}

TEST(GramAccumulator, SumsProductsInF64) {
  ThreadTeam team(2);
  const Matrix rows = RandomRows(300, 200, 1);
  GramAccumulator gram(200, team);
  gram.Add(rows.ref());
  const Eigen::Map<const Eigen::MatrixXf> columns(rows.ref().data, 200, 300);
  const Eigen::MatrixXd x = columns.cast<double>();
  EXPECT_LT((gram.Sum() - x * x.transpose()).norm(), 1e-11);
  EXPECT_LT((gram.Mean() - x * x.transpose() / 300).norm(), 1e-13);
  EXPECT_EQ(gram.rows(), 300u);
  EXPECT_TRUE(gram.Sum() == gram.Sum().transpose());
}

TEST(GramAccumulator, GivesTheSameBitsForAnyBlocksAndThreads) {
  const Matrix rows = RandomRows(700, 150, 2);
  ThreadTeam one(1), three(3);
  GramAccumulator whole(150, one), cut(150, three);
  whole.Add(rows.ref());
  Random random(3);
  for (size_t first = 0; first < 700;) {
    const size_t count = std::min<size_t>(700 - first, random.Below(150));
    cut.Add(Part(rows, first, count));
    first += count;
    if (random.Below(3) == 0) cut.Sum();  // a look changes nothing
  }
  EXPECT_TRUE(whole.Sum() == cut.Sum());
}

TEST(GramAccumulator, KeepsSmallTermsBesideLargeOnes) {
  ThreadTeam team(1);
  GramAccumulator gram(1, team);
  Matrix large(1, 1), small(1000, 1);
  large.row(0)[0] = 4096;
  for (float& value : small.ref().span()) value = 0x1p-10f;
  gram.Add(large.ref());
  gram.Add(small.ref());
  EXPECT_EQ(gram.Sum()(0, 0), 0x1p24 + 1000 * 0x1p-20);
}

TEST(GramAccumulator, OfNothingIsZeros) {
  ThreadTeam team(1);
  GramAccumulator gram(5, team);
  gram.Add({nullptr, 0, 5});
  EXPECT_EQ(gram.Sum(), Eigen::MatrixXd::Zero(5, 5));
  EXPECT_EQ(gram.Mean(), Eigen::MatrixXd::Zero(5, 5));
}

}  // namespace
}  // namespace efedllm
