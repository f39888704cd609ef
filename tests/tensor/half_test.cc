#include "tensor/half.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/random.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

TEST(Half, EveryF16ComesBackFromF32) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = F16ToF32(static_cast<uint16_t>(h));
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(F16ToF32(F32ToF16(f))));
    } else {
      EXPECT_EQ(F32ToF16(f), h);
    }
  }
}

TEST(Half, F16MeansWhatIeeeSays) {
  EXPECT_EQ(F16ToF32(0x3c00), 1.0f);
  EXPECT_EQ(F16ToF32(0xc000), -2.0f);
  EXPECT_EQ(F16ToF32(0x7bff), 65504.0f);
  EXPECT_EQ(F16ToF32(0x0001), 0x1p-24f);
  EXPECT_EQ(F16ToF32(0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::signbit(F16ToF32(0x8000)));
}

// The nearest F16, ties to even, found by looking at both neighbours.
TEST(Half, F32ToF16RoundsToNearestEven) {
  constexpr uint64_t kSeed = 7;
  Random random(kSeed);
  for (int i = 0; i < 200000; ++i) {
    const float f = std::ldexp(static_cast<float>(random.Uniform()) + 0.5f,
                               static_cast<int>(random.Below(44)) - 27);
    const uint16_t h = F32ToF16(f);
    if (h >= 0x7c00) {
      EXPECT_GE(f, 65520.0f);
      continue;
    }
    const double error = std::fabs(double{f} - F16ToF32(h));
    const double above = std::fabs(double{f} - F16ToF32(static_cast<uint16_t>(h + 1)));
    const double below =
        h == 0 ? above : std::fabs(double{f} - F16ToF32(static_cast<uint16_t>(h - 1)));
    EXPECT_LE(error, above) << f;
    EXPECT_LE(error, below) << f;
    if (error == above || error == below) EXPECT_EQ(h & 1, 0) << f;
  }
}

TEST(Half, Bf16IsTheRoundedUpperHalf) {
  EXPECT_EQ(Bf16ToF32(0x3f80), 1.0f);
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // tie to even
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(std::bit_cast<float>(0x7f800001u)))));
}

}  // namespace
}  // namespace efedllm
