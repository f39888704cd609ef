#include "layers/rope.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace efedllm {
namespace {

TEST(Rope, TurnsNeighbouringPairsByPositionTimesFrequency) {
  const Rope rope(RopeFrequencies(4, 10000, {}), false, 1);
  float cos[4], sin[4];
  rope.Angles(3, cos, sin);
  EXPECT_FLOAT_EQ(cos[0], std::cos(3.0f));
  EXPECT_FLOAT_EQ(sin[1], std::sin(3.0f));
  EXPECT_FLOAT_EQ(cos[2], std::cos(0.03f));
  EXPECT_FLOAT_EQ(sin[3], std::sin(0.03f));
}

TEST(Rope, DividesFrequenciesByTheModelsFactors) {
  const float factors[] = {1.0f, 8.0f};
  float cos[4], sin[4];
  Rope(RopeFrequencies(4, 10000, factors), false, 1).Angles(800, cos, sin);
  EXPECT_FLOAT_EQ(cos[0], static_cast<float>(std::cos(800.0)));
  EXPECT_FLOAT_EQ(sin[2], std::sin(1.0f));
}

TEST(Rope, TurnsHalvesBySameAnglesAtOtherPlaces) {
  float cos[6], sin[6], cos_halves[6], sin_halves[6];
  Rope(RopeFrequencies(6, 500, {}), false, 1).Angles(17, cos, sin);
  Rope(RopeFrequencies(6, 500, {}), true, 1).Angles(17, cos_halves, sin_halves);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(cos_halves[i], cos[2 * i]);
    EXPECT_EQ(cos_halves[3 + i], cos[2 * i + 1]);
    EXPECT_EQ(sin_halves[i], sin[2 * i]);
    EXPECT_EQ(sin_halves[3 + i], sin[2 * i + 1]);
  }
}

TEST(Rope, MagnitudeScalesBoth) {
  float cos[2], sin[2];
  Rope(RopeFrequencies(2, 10000, {}), false, 1.25f).Angles(2, cos, sin);
  EXPECT_FLOAT_EQ(cos[0], 1.25f * std::cos(2.0f));
  EXPECT_FLOAT_EQ(sin[1], 1.25f * std::sin(2.0f));
}

// Pairs that turn more than beta_fast times in the original context keep their frequency, those
// that turn less than beta_slow times are divided by the factor, and between them it only falls.
TEST(Rope, YarnSlowsOnlyTheSlowPairs) {
  constexpr uint32_t kDims = 64, kContext = 4096;
  const auto plain = RopeFrequencies(kDims, 10000, {});
  const auto yarn = YarnFrequencies(kDims, 10000, {.factor = 8, .original_context = kContext});
  int kept = 0, divided = 0;
  double last_share = 1;
  for (size_t i = 0; i < plain.size(); ++i) {
    const double turns = kContext * plain[i] / (2 * M_PI), share = yarn[i] / plain[i];
    EXPECT_LE(share, last_share + 1e-12);
    last_share = share;
    if (turns > 45) {
      EXPECT_DOUBLE_EQ(share, 1);
      ++kept;
    } else if (turns < 0.7) {
      EXPECT_DOUBLE_EQ(share, 1.0 / 8);
      ++divided;
    }
  }
  EXPECT_GT(kept, 5);
  EXPECT_GT(divided, 5);
}

}  // namespace
}  // namespace efedllm
