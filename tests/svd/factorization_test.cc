#include "svd/factorization.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "spectrum_world.h"

namespace efedllm {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

// Second moments with a few strong directions, as activations have.
MatrixXd Moments(Index n, uint64_t seed) {
  const MatrixXd q = RandomOrthonormal(n, n, seed);
  const VectorXd values =
      VectorXd::NullaryExpr(n, [](Index i) { return 100 * std::pow(0.8, static_cast<double>(i)); });
  return q * values.asDiagonal() * q.transpose();
}

MatrixXd Truncated(const Factorization& f, Index rank) {
  return f.b.leftCols(rank) * f.a.topRows(rank);
}

TEST(Factorize, SaysWhatEveryRankLoses) {
  ThreadTeam team(2);
  const struct {
    Index m, n;
  } shapes[] = {{24, 40}, {40, 24}, {90, 24}, {32, 32}, {1, 16}, {16, 1}};
  for (const auto& shape : shapes) {
    const MatrixXd w = RandomMatrix(shape.m, shape.n, 1), gram = Moments(shape.n, 2);
    for (const auto& f : {Factorize(w, gram, 1000, team), FactorizePlainly(w, gram, 1000, team)}) {
      ASSERT_TRUE(f.ok()) << f.status();
      ASSERT_EQ(f->rank(), std::min(shape.m, shape.n));
      ASSERT_EQ(f->loss.size(), f->rank() + 1);
      for (Index rank = 0; rank <= f->rank(); ++rank) {
        EXPECT_NEAR(f->loss[rank], OutputLoss(w - Truncated(*f, rank), gram, team),
                    1e-9 * f->loss[0])
            << shape.m << " x " << shape.n << " rank " << rank;
      }
    }
  }
}

TEST(Factorize, IsTheBestForItsInputs) {
  ThreadTeam team(1);
  for (const Index m : {20, 60}) {
    const MatrixXd w = RandomMatrix(m, 30, 3), gram = Moments(30, 4);
    const auto aware = Factorize(w, gram, 30, team);
    const auto plain = FactorizePlainly(w, gram, 30, team);
    ASSERT_TRUE(aware.ok() && plain.ok());
    // Eckart and Young for W·R with G = R·Rᵀ.
    const MatrixXd root = Eigen::LLT<MatrixXd>(gram).matrixL();
    const Eigen::JacobiSVD<MatrixXd> white(w * root);
    for (Index rank = 1; rank < std::min<Index>(m, 30); ++rank) {
      const double least = white.singularValues().tail(std::min<Index>(m, 30) - rank).squaredNorm();
      EXPECT_NEAR(aware->loss[rank], least, 1e-7 * aware->loss[0]) << rank;
      EXPECT_LE(aware->loss[rank], plain->loss[rank] * (1 + 1e-9));
    }
    EXPECT_LT(aware->loss[5], 0.5 * plain->loss[5]);
  }
}

TEST(Factorize, WithoutKnowledgeOfInputsIsThePlainSvd) {
  ThreadTeam team(1);
  const MatrixXd w = RandomMatrix(25, 35, 5), gram = MatrixXd::Identity(35, 35);
  const auto aware = Factorize(w, gram, 25, team);
  const auto plain = FactorizePlainly(w, gram, 25, team);
  ASSERT_TRUE(aware.ok() && plain.ok());
  EXPECT_LT((aware->loss - plain->loss).norm(), 1e-9);
  EXPECT_LT((Truncated(*aware, 10) - Truncated(*plain, 10)).norm(), 1e-9);
}

TEST(Factorize, LosesNothingWhereInputsLieInASubspace) {
  ThreadTeam team(1);
  for (const Index m : {20, 100}) {
    const MatrixXd basis = RandomOrthonormal(40, 6, 6);
    const MatrixXd w = RandomMatrix(m, 40, 7), gram = basis * basis.transpose();
    const auto f = Factorize(w, gram, 6, team);
    ASSERT_TRUE(f.ok());
    EXPECT_LT(f->loss[6], 1e-10 * f->loss[0]);
    EXPECT_LT(((w - f->b * f->a) * basis).norm(), 1e-6 * w.norm());
  }
}

TEST(Factorize, FindsAFewOfManyAtRandom) {
  ThreadTeam team(2);
  const MatrixXd w = RandomMatrix(300, 260, 8), gram = Moments(260, 9);
  const auto few = Factorize(w, gram, 20, team);
  const auto all = Factorize(w, gram, 260, team);
  ASSERT_TRUE(few.ok() && all.ok());
  EXPECT_EQ(few->rank(), 20);
  for (Index rank = 0; rank <= 20; ++rank) {
    EXPECT_NEAR(few->loss[rank], all->loss[rank], 1e-3 * all->loss[rank]) << rank;
  }
}

TEST(Factorize, OfNothingIsNothing) {
  ThreadTeam team(1);
  const auto zero = Factorize(MatrixXd::Zero(8, 12), Moments(12, 1), 4, team);
  ASSERT_TRUE(zero.ok());
  EXPECT_EQ(zero->loss.norm(), 0);
  EXPECT_TRUE(zero->a.allFinite() && zero->b.allFinite());
  const auto unseen = Factorize(RandomMatrix(8, 12, 1), MatrixXd::Zero(12, 12), 8, team);
  ASSERT_TRUE(unseen.ok());
  EXPECT_TRUE(unseen->a.allFinite() && unseen->b.allFinite());
}

TEST(Factorize, RefusesWhatDoesNotFit) {
  ThreadTeam team(1);
  MatrixXd bad = RandomMatrix(4, 6, 1);
  EXPECT_TRUE(absl::IsInvalidArgument(Factorize(bad, MatrixXd::Identity(4, 4), 2, team).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Factorize(MatrixXd(), MatrixXd(), 2, team).status()));
  bad(1, 1) = std::numeric_limits<double>::quiet_NaN();
  for (const auto& f : {Factorize(bad, MatrixXd::Identity(6, 6), 2, team),
                        FactorizePlainly(bad, MatrixXd::Identity(6, 6), 2, team)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(f.status()));
  }
}

TEST(RoundingLoss, IsWhatRoundedFactorsLoseMore) {
  ThreadTeam team(1);
  const MatrixXd w = RandomMatrix(60, 80, 10), gram = Moments(80, 11);
  const auto f = Factorize(w, gram, 60, team);
  ASSERT_TRUE(f.ok());
  const auto rounded = [](const MatrixXd& x) -> MatrixXd {
    const double step = x.cwiseAbs().maxCoeff() / 50;
    return (x / step).array().round() * step;
  };
  const MatrixXd b = rounded(f->b), a = rounded(f->a);
  const VectorXd more = RoundingLoss(*f, b, a, gram, team);
  for (const Index rank : {4, 16, 40}) {
    const double real = OutputLoss(w - b.leftCols(rank) * a.topRows(rank), gram, team);
    EXPECT_NEAR(f->loss[rank] + more[rank], real, 0.2 * real) << rank;
  }
}

}  // namespace
}  // namespace efedllm
