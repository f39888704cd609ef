#include "common/portable_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "common/random.h"
#include "common/sha256.h"

namespace efedllm {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double RelativeError(double value, double expected) {
  return std::abs(value - expected) / std::abs(expected);
}

TEST(PortableMath, PowOfRopeBasesIsNearlyExact) {
  for (double base : {10000.0, 500000.0, 1e6, 2.5}) {
    for (int i = 0; i < 128; ++i) {
      const long double want = std::pow(static_cast<long double>(base), -2.0L * i / 256);
      EXPECT_NEAR(static_cast<double>(PortablePow(base, -2.0 * i / 256) / want), 1.0, 1e-14);
    }
  }
}

TEST(PortableMath, SinAndCosRoundToTheRightFloat) {
  Random random(2);
  for (int i = 0; i < 200000; ++i) {
    const double angle = random.Uniform() * (i % 2 == 0 ? 10.0 : 1e6);
    double sin, cos;
    PortableSinCos(angle, &sin, &cos);
    EXPECT_NEAR(sin, static_cast<double>(std::sin(static_cast<long double>(angle))), 3e-16);
    EXPECT_NEAR(cos, static_cast<double>(std::cos(static_cast<long double>(angle))), 3e-16);
  }
}

TEST(PortableMath, ExpIsWithinTwoUnitsInTheLastPlace) {
  Random random(1);
  for (int i = 0; i < 200'000; ++i) {
    const double x = (random.Uniform() - 0.5) * (i % 2 == 0 ? 1400 : 4);
    ASSERT_LE(RelativeError(PortableExp(x), std::exp(x)), 4.5e-16) << x;
  }
  EXPECT_EQ(PortableExp(0), 1);
}

TEST(PortableMath, LogIsWithinTwoUnitsInTheLastPlace) {
  Random random(2);
  for (int i = 0; i < 200'000; ++i) {
    const double x = std::exp((random.Uniform() - 0.5) * (i % 2 == 0 ? 1400 : 4));
    if (x == 1) continue;
    ASSERT_LE(RelativeError(PortableLog(x), std::log(x)), 4.5e-16) << x;
  }
  EXPECT_EQ(PortableLog(1), 0);
}

TEST(PortableMath, EdgesAreDefined) {
  EXPECT_EQ(PortableExp(-kInf), 0);
  EXPECT_EQ(PortableExp(-1000), 0);
  EXPECT_EQ(PortableExp(kInf), kInf);
  EXPECT_EQ(PortableExp(1000), kInf);
  EXPECT_TRUE(std::isnan(PortableExp(kNan)));
  EXPECT_EQ(PortableLog(0), -kInf);
  EXPECT_EQ(PortableLog(kInf), kInf);
  EXPECT_TRUE(std::isnan(PortableLog(-1)));
  EXPECT_TRUE(std::isnan(PortableLog(kNan)));
}

// The digest was taken when the test was written: another compiler or CPU must give the same bits.
TEST(PortableMath, GivesTheSameBitsEverywhere) {
  Random random(3);
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 10'000; ++i) {
    const double x = random.Uniform() * 100;
    for (const double y : {PortableExp(-x), PortableLog(x)}) {
      uint8_t raw[sizeof y];
      std::memcpy(raw, &y, sizeof y);
      bytes.insert(bytes.end(), raw, raw + sizeof y);
    }
  }
  EXPECT_EQ(ToHex(Sha256(bytes)),
            "7abc2d5086aaf8c5aaefa63c9e6c9c7ed14ddd4703aa92a38d0a68d98dc71c52");
}

}  // namespace
}  // namespace efedllm
