#include "incentive/beta_evidence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/random.h"

namespace efedllm {
namespace {

TEST(BetaEvidence, LogGammaIsThatOfTheLibrary) {
  for (double x = 0.01; x < 1e7; x *= 1.37) {
    const double expected = std::lgamma(x);
    EXPECT_NEAR(PortableLogGamma(x), expected, 1e-13 * std::max(1.0, std::fabs(expected))) << x;
  }
}

TEST(BetaEvidence, DistributionsWithClosedForms) {
  for (double x = 0.05; x < 1; x += 0.05) {
    EXPECT_NEAR(BetaDistribution(1, 1, x), x, 1e-13);
    EXPECT_NEAR(BetaDistribution(7, 1, x), std::pow(x, 7), 1e-13);
    EXPECT_NEAR(BetaDistribution(1, 9, x), 1 - std::pow(1 - x, 9), 1e-13);
    EXPECT_NEAR(BetaDistribution(0.5, 0.5, x), 2 / std::acos(-1.0) * std::asin(std::sqrt(x)),
                1e-12);
    // Two good of three: 3 x^2 - 2 x^3.
    EXPECT_NEAR(BetaDistribution(2, 2, x), 3 * x * x - 2 * x * x * x, 1e-13);
  }
  EXPECT_EQ(BetaDistribution(3, 4, -1), 0);
  EXPECT_EQ(BetaDistribution(3, 4, 2), 1);
}

// I_x(a, b) of whole numbers is the chance of at least a successes in a + b - 1 trials.
TEST(BetaEvidence, DistributionsOfWholeNumbersAreBinomialSums) {
  Random random(11);
  for (int i = 0; i < 500; ++i) {
    const int a = 1 + static_cast<int>(random.Below(60));
    const int b = 1 + static_cast<int>(random.Below(60));
    const double x = 0.01 + 0.98 * random.Uniform();
    const int n = a + b - 1;
    double sum = 0;
    for (int k = a; k <= n; ++k) {
      sum += std::exp(std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) +
                      k * std::log(x) + (n - k) * std::log1p(-x));
    }
    EXPECT_NEAR(BetaDistribution(a, b, x), sum, 1e-10) << "seed 11: " << a << " " << b << " " << x;
  }
}

TEST(BetaEvidence, QuantilesInvertTheDistribution) {
  Random random(12);
  for (int i = 0; i < 500; ++i) {
    const double a = std::exp(12 * random.Uniform());
    const double b = std::exp(12 * random.Uniform());
    const double quantile = 0.001 + 0.5 * random.Uniform();
    const double x = BetaQuantile(a, b, quantile);
    const std::string what = absl::StrCat("seed 12: ", a, " ", b, " ", quantile);
    EXPECT_LE(BetaDistribution(a, b, x - 1e-9), quantile + 1e-9) << what;
    EXPECT_GE(BetaDistribution(a, b, x + 1e-9), quantile - 1e-9) << what;
    EXPECT_TRUE(x > 0 && x < 1) << what;
  }
}

TEST(BetaEvidence, LowerBoundRisesWithGoodAndFallsWithBad) {
  Random random(13);
  for (int i = 0; i < 300; ++i) {
    const BetaEvidence evidence{1000 * random.Uniform(), 100 * random.Uniform()};
    const double bound = LowerBound(evidence, 1, 0.05);
    EXPECT_GT(bound, 0);
    EXPECT_LT(bound, Mean(evidence, 1)) << "seed 13: " << evidence.good << " " << evidence.bad;
    EXPECT_GT(LowerBound(Add(evidence, 5, 0), 1, 0.05), bound);
    EXPECT_LT(LowerBound(Add(evidence, 0, 5), 1, 0.05), bound);
  }
  EXPECT_NEAR(LowerBound({}, 1, 0.05), 0.05, 1e-12);
  EXPECT_NEAR(LowerBound({99, 0}, 1, 0.05), std::pow(0.05, 0.01), 1e-12);
}

TEST(BetaEvidence, HalvesEveryHalfLife) {
  const BetaEvidence half = Forget({64, 8}, 3600, 3600);
  EXPECT_NEAR(half.good, 32, 1e-12);
  EXPECT_NEAR(half.bad, 4, 1e-12);
  EXPECT_EQ(Forget({64, 8}, -5, 3600), (BetaEvidence{64, 8}));
  EXPECT_EQ(Forget({64, 8}, 1e12, 1), (BetaEvidence{0, 0}));
  // In many small steps as in one.
  BetaEvidence evidence{1000, 10};
  for (int i = 0; i < 1000; ++i) evidence = Forget(evidence, 7, 3600);
  EXPECT_NEAR(evidence.good, Forget({1000, 10}, 7000, 3600).good, 1e-9);
}

TEST(BetaEvidence, IsBoundedAndTakesNoNonsense) {
  BetaEvidence evidence;
  for (int i = 0; i < 300; ++i) evidence = Add(evidence, 1000, 10);
  EXPECT_EQ(evidence.good, kMostEvidence);
  EXPECT_GT(evidence.bad, 0);
  EXPECT_EQ(Add({1, 2}, -5, std::numeric_limits<double>::quiet_NaN()), (BetaEvidence{1, 2}));
  EXPECT_EQ(Add({}, std::numeric_limits<double>::infinity(), 0).good, kMostEvidence);
}

}  // namespace
}  // namespace efedllm
