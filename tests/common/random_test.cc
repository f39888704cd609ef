#include "common/random.h"

#include <gtest/gtest.h>

#include <array>

namespace efedllm {
namespace {

TEST(Random, GivesTheNumbersOfSplitMix64) {
  // From the author's splitmix64.c with seed 1234567.
  Random random(1234567);
  for (const uint64_t expected : {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                  4593380528125082431u, 16408922859458223821u}) {
    EXPECT_EQ(random.Next(), expected);
  }
}

TEST(Random, BelowStaysBelowAndReachesAll) {
  Random random(1);
  std::array<int, 7> seen{};
  for (int i = 0; i < 7000; i++) seen.at(random.Below(7))++;
  for (const int count : seen) EXPECT_GT(count, 800);
  EXPECT_EQ(random.Below(1), 0u);
}

TEST(Random, UniformIsInTheHalfOpenUnitInterval) {
  Random random(2);
  double sum = 0;
  for (int i = 0; i < 10000; i++) {
    const double u = random.Uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

TEST(Random, SecretsHaveTheAskedLengthAndDiffer) {
  EXPECT_EQ(SecureRandomBytes(0), "");
  EXPECT_EQ(SecureRandomBytes(1000).size(), 1000u);
  EXPECT_NE(SecureRandomBytes(16), SecureRandomBytes(16));
  EXPECT_NE(SecureRandomU64(), SecureRandomU64());
}

}  // namespace
}  // namespace efedllm
