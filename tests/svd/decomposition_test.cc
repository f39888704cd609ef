#include "svd/decomposition.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "spectrum_world.h"

namespace efedllm {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

VectorXd Geometric(Index n, double ratio) {
  return VectorXd::NullaryExpr(n, [&](Index i) { return std::pow(ratio, i); });
}

void ExpectOrthonormal(const MatrixXd& q) {
  EXPECT_LT((q.transpose() * q - MatrixXd::Identity(q.cols(), q.cols())).norm(), 1e-11);
}

void ExpectWellFormed(const ThinSvd& svd) {
  ExpectOrthonormal(svd.u);
  ExpectOrthonormal(svd.v);
  for (Index i = 0; i < svd.rank(); ++i) {
    EXPECT_GE(svd.values[i], 0);
    if (i > 0) EXPECT_LE(svd.values[i], svd.values[i - 1]);
  }
}

// What no approximation of this rank beats (Eckart and Young).
double Tail(const VectorXd& values, Index rank) {
  return rank >= values.size() ? 0 : values.tail(values.size() - rank).norm();
}

TEST(ExactSvd, FindsKnownSpectra) {
  struct Case {
    const char* name;
    Index rows, cols;
    VectorXd values;
  };
  VectorXd clustered(40);
  clustered << VectorXd::Constant(20, 3.0), VectorXd::Constant(20, 3.0 - 1e-9);
  VectorXd massive = VectorXd::Constant(24, 1e-6);
  massive[0] = 1e6;
  for (const Case& c :
       {Case{"falling", 80, 60, Geometric(60, 0.8)}, Case{"wide", 33, 120, Geometric(33, 0.9)},
        Case{"clustered", 64, 40, clustered}, Case{"rank-deficient", 70, 50, Geometric(7, 0.5)},
        Case{"one massive value", 50, 24, massive},
        Case{"tiny values", 30, 30, 1e-150 * Geometric(30, 0.9)},
        Case{"row", 1, 19, VectorXd::Constant(1, 2.5)},
        Case{"column", 19, 1, VectorXd::Constant(1, 2.5)},
        Case{"number", 1, 1, VectorXd::Constant(1, 4.0)}}) {
    SCOPED_TRACE(c.name);
    const MatrixXd a = WithSingularValues(c.rows, c.cols, c.values, 7);
    const auto svd = ExactSvd(a);
    ASSERT_TRUE(svd.ok()) << svd.status();
    ASSERT_EQ(svd->rank(), std::min(c.rows, c.cols));
    ExpectWellFormed(*svd);
    VectorXd expected = VectorXd::Zero(svd->rank());
    expected.head(c.values.size()) = c.values;
    EXPECT_LT((svd->values - expected).norm(), 1e-12 * c.values.norm());
    EXPECT_LT((svd->Product() - a).norm(), 1e-12 * a.norm());
  }
}

TEST(ExactSvd, OfZerosIsZeros) {
  const auto svd = ExactSvd(MatrixXd::Zero(20, 30));
  ASSERT_TRUE(svd.ok());
  EXPECT_EQ(svd->values.norm(), 0);
  ExpectWellFormed(*svd);
}

TEST(Decompositions, RefuseWhatHasNone) {
  ThreadTeam team(1);
  MatrixXd bad = RandomMatrix(8, 8, 1);
  bad(3, 4) = std::numeric_limits<double>::quiet_NaN();
  MatrixXd infinite = RandomMatrix(8, 8, 1);
  infinite(0, 0) = std::numeric_limits<double>::infinity();
  for (const MatrixXd& a : {bad, infinite, MatrixXd(0, 5), MatrixXd(5, 0)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ExactSvd(a).status()));
    EXPECT_TRUE(absl::IsInvalidArgument(RandomizedSvd(a, 2, {}, team).status()));
    EXPECT_TRUE(absl::IsInvalidArgument(AdaptiveSvd(a, 0.1, 2, {}, team).status()));
    EXPECT_TRUE(absl::IsInvalidArgument(EigenOfSymmetric(a).status()));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(EigenOfSymmetric(MatrixXd::Ones(3, 4)).status()));
}

TEST(RandomizedSvd, IsNearlyOptimalOnFallingSpectra) {
  ThreadTeam team(2);
  for (const double ratio : {0.5, 0.9, 0.97}) {
    const VectorXd values = Geometric(120, ratio);
    const MatrixXd a = WithSingularValues(200, 120, values, 3);
    for (const Index rank : {1, 10, 40}) {
      const auto svd = RandomizedSvd(a, rank, {}, team);
      ASSERT_TRUE(svd.ok());
      ASSERT_EQ(svd->rank(), rank);
      ExpectWellFormed(*svd);
      const double error = (a - svd->Product()).norm();
      EXPECT_LT(error, 1.01 * Tail(values, rank) + 1e-13) << ratio << " rank " << rank;
      EXPECT_LE(svd->values[0], values[0] + 1e-12);  // of a projection of a
    }
  }
}

TEST(RandomizedSvd, PowerIterationsHelpWhereTheSpectrumFallsSlowly) {
  ThreadTeam team(1);
  const VectorXd values = VectorXd::NullaryExpr(
      200, [](Index i) { return 1 / std::sqrt(1.0 + static_cast<double>(i)); });
  const MatrixXd a = WithSingularValues(300, 200, values, 5);
  double previous = std::numeric_limits<double>::infinity();
  for (const int iterations : {0, 1, 2, 4}) {
    const auto svd = RandomizedSvd(a, 20, {.power_iterations = iterations}, team);
    ASSERT_TRUE(svd.ok());
    const double excess = (a - svd->Product()).norm() / Tail(values, 20) - 1;
    EXPECT_GE(excess, -1e-12);
    EXPECT_LT(excess, previous);
    previous = excess;
  }
  EXPECT_LT(previous, 3e-3);
}

TEST(RandomizedSvd, IsExactAtFullRankAndOnDeficientMatrices) {
  ThreadTeam team(1);
  const MatrixXd full = RandomMatrix(30, 45, 9);
  const auto all = RandomizedSvd(full, 100, {}, team);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->rank(), 30);
  EXPECT_LT((all->Product() - full).norm(), 1e-11);

  const MatrixXd deficient = WithSingularValues(60, 50, Geometric(5, 0.5), 2);
  const auto ten = RandomizedSvd(deficient, 10, {}, team);
  ASSERT_TRUE(ten.ok());
  EXPECT_LT((ten->Product() - deficient).norm(), 1e-12);
  EXPECT_LT(ten->values.tail(5).norm(), 1e-12);
  ExpectWellFormed(*ten);

  for (const MatrixXd& thin : {RandomMatrix(1, 40, 1), RandomMatrix(40, 1, 1)}) {
    const auto svd = RandomizedSvd(thin, 3, {}, team);
    ASSERT_TRUE(svd.ok());
    EXPECT_EQ(svd->rank(), 1);
    EXPECT_NEAR(svd->values[0], thin.norm(), 1e-12);
  }
  const auto zeros = RandomizedSvd(MatrixXd::Zero(20, 30), 4, {}, team);
  ASSERT_TRUE(zeros.ok());
  EXPECT_EQ(zeros->values.norm(), 0);
}

TEST(RandomizedSvd, GivesTheSameBitsForAnyThreads) {
  const MatrixXd a = RandomMatrix(150, 170, 4);
  ThreadTeam one(1), three(3);
  const auto first = RandomizedSvd(a, 90, {}, one);
  const auto second = RandomizedSvd(a, 90, {}, three);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_TRUE(first->u == second->u && first->values == second->values && first->v == second->v);
}

TEST(AdaptiveSvd, FindsTheRankOfATolerance) {
  ThreadTeam team(2);
  const VectorXd values = Geometric(100, 0.85);
  const MatrixXd a = WithSingularValues(160, 100, values, 6);
  for (const double tolerance : {0.5, 0.1, 1e-3, 1e-6}) {
    Index optimal = 0;
    while (Tail(values, optimal) > tolerance * values.norm()) ++optimal;
    const auto svd = AdaptiveSvd(a, tolerance, 100, {}, team);
    ASSERT_TRUE(svd.ok());
    ExpectWellFormed(*svd);
    EXPECT_GE(svd->rank(), optimal);
    EXPECT_LE(svd->rank(), optimal + 1) << tolerance;
    EXPECT_LE((a - svd->Product()).norm(), tolerance * a.norm());
  }
}

TEST(AdaptiveSvd, KeepsToItsLimits) {
  ThreadTeam team(1);
  const MatrixXd a = RandomMatrix(80, 60, 8);
  const auto few = AdaptiveSvd(a, 1e-3, 12, {}, team);
  ASSERT_TRUE(few.ok());
  EXPECT_EQ(few->rank(), 12);
  const auto all = AdaptiveSvd(a, 0, 1000, {}, team);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->rank(), 60);
  EXPECT_LT((a - all->Product()).norm(), 1e-11);
  const auto none = AdaptiveSvd(a, 1, 1000, {}, team);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->rank(), 0);
  const auto zeros = AdaptiveSvd(MatrixXd::Zero(5, 5), 0, 3, {}, team);
  ASSERT_TRUE(zeros.ok());
  EXPECT_EQ(zeros->rank(), 0);
}

TEST(AdaptiveSvd, StopsAtTheRankOfADeficientMatrix) {
  ThreadTeam team(1);
  const MatrixXd a = WithSingularValues(90, 70, VectorXd::Constant(9, 2.0), 2);
  const auto svd = AdaptiveSvd(a, 1e-8, 70, {}, team);
  ASSERT_TRUE(svd.ok());
  EXPECT_EQ(svd->rank(), 9);
}

TEST(EigenOfSymmetric, FindsKnownSpectra) {
  VectorXd clustered(30);
  clustered << VectorXd::Constant(10, 5.0), VectorXd::Constant(20, 1e-7);
  for (const VectorXd& values :
       {Geometric(50, 0.7), clustered, VectorXd(VectorXd::LinSpaced(21, 10, -10)),
        VectorXd(VectorXd::Constant(1, 3.0))}) {
    const MatrixXd q = RandomOrthonormal(values.size(), values.size(), 11);
    const MatrixXd a = q * values.asDiagonal() * q.transpose();
    const auto eigen = EigenOfSymmetric(a);
    ASSERT_TRUE(eigen.ok());
    EXPECT_LT((eigen->values - values).norm(), 1e-12 * values.norm());
    ExpectOrthonormal(eigen->vectors);
    EXPECT_LT((eigen->vectors * eigen->values.asDiagonal() * eigen->vectors.transpose() - a).norm(),
              1e-12 * a.norm());
  }
}

TEST(EigenOfSymmetric, OfAGramMatrixHasTheSquaredSingularValues) {
  const VectorXd values = Geometric(40, 0.8);
  const MatrixXd a = WithSingularValues(60, 40, values, 13);
  const auto eigen = EigenOfSymmetric(a.transpose() * a);
  ASSERT_TRUE(eigen.ok());
  for (Index i = 0; i < 40; ++i) EXPECT_NEAR(eigen->values[i], values[i] * values[i], 1e-15 * 4);
}

}  // namespace
}  // namespace efedllm
