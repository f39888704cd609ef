#include "layers/exact_math.h"

#include <cmath>
#include <cstdint>

#include "common/random.h"
#include "gtest/gtest.h"
#include "layers/kernels/constants.h"
#include "layers/layers_world.h"

namespace efedllm {
namespace {

double UlpsApart(double got, long double want) {
  const double nearest = static_cast<double>(want);
  const double ulp = std::nextafter(std::fabs(nearest), INFINITY) - std::fabs(nearest);
  return static_cast<double>(std::fabs(static_cast<long double>(got) - want)) / ulp;
}

TEST(ExactMath, LogAndExpAreWithinTwoUlp) {
  Random random(1);
  for (int i = 0; i < 100000; ++i) {
    const double x = std::exp(random.Uniform() * 60 - 30);
    EXPECT_LE(UlpsApart(ExactLog(x), std::log(static_cast<long double>(x))), 2) << x;
    const double y = random.Uniform() * 200 - 100;
    EXPECT_LE(UlpsApart(ExactExp(y), std::exp(static_cast<long double>(y))), 2) << y;
  }
}

TEST(ExactMath, PowOfRopeBasesIsNearlyExact) {
  for (double base : {10000.0, 500000.0, 1e6, 2.5}) {
    for (int i = 0; i < 128; ++i) {
      const long double want = std::pow(static_cast<long double>(base), -2.0L * i / 256);
      EXPECT_NEAR(static_cast<double>(ExactPow(base, -2.0 * i / 256) / want), 1.0, 1e-14);
    }
  }
}

TEST(ExactMath, SinAndCosRoundToTheRightFloat) {
  Random random(2);
  for (int i = 0; i < 200000; ++i) {
    const double angle = random.Uniform() * (i % 2 == 0 ? 10.0 : 1e6);
    double sin, cos;
    ExactSinCos(angle, &sin, &cos);
    EXPECT_NEAR(sin, static_cast<double>(std::sin(static_cast<long double>(angle))), 3e-16);
    EXPECT_NEAR(cos, static_cast<double>(std::cos(static_cast<long double>(angle))), 3e-16);
  }
}

TEST(Kernels, ExpIsWithinTwoUlp) {
  Random random(3);
  for (int i = 0; i < 200000; ++i) {
    const float x = static_cast<float>(random.Uniform() * 176 - 87.3);
    float y;
    ScalarKernels().exp(&x, 1, &y);
    const double want = std::exp(static_cast<double>(x));
    const double ulp =
        std::nextafter(static_cast<float>(want), INFINITY) - static_cast<float>(want);
    EXPECT_LE(std::fabs(y - want) / ulp, 1.5) << x;
  }
}

TEST(Kernels, ExpEndsInZeroAndInfinity) {
  const float x[] = {-INFINITY, -200.0f, kExpLow, 0.0f, -0.0f, kExpHigh, 89.0f, INFINITY};
  for (const KernelTable* table : RunnableKernels()) {
    float y[8];
    table->exp(x, 8, y);
    EXPECT_EQ(y[0], 0);
    EXPECT_EQ(y[1], 0);
    EXPECT_GT(y[2], 0);
    EXPECT_EQ(y[3], 1);
    EXPECT_EQ(y[4], 1);
    EXPECT_NEAR(y[5] / std::exp(double{kExpHigh}), 1, 1e-6);
    EXPECT_EQ(y[6], INFINITY);
    EXPECT_EQ(y[7], INFINITY);
  }
}

}  // namespace
}  // namespace efedllm
