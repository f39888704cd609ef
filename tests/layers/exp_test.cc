#include <cmath>
#include <cstdint>

#include "common/random.h"
#include "gtest/gtest.h"
#include "layers/kernels/constants.h"
#include "layers/layers_world.h"

namespace efedllm {
namespace {

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
