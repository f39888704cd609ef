#include "svd/codec_grid.h"

#include <algorithm>
#include <bit>

#include "svd/codec.h"

namespace efedllm {
namespace {

constexpr uint32_t kSixteenth = 16;
// 2^(i/16), rounded to nearest.
constexpr float kUp[kSixteenth] = {1.0f,          1.0442737340f, 1.0905077457f, 1.1387885809f,
                                   1.1892070770f, 1.2418577671f, 1.2968395948f, 1.3542555570f,
                                   1.4142135382f, 1.4768261909f, 1.5422108173f, 1.6104903221f,
                                   1.6817928553f, 1.7562521696f, 1.8340080976f, 1.9152065516f};
// 2^(-i/16), rounded to nearest.
constexpr float kDown[kSixteenth] = {1.0f,          0.9576032758f, 0.9170040488f, 0.8781260848f,
                                     0.8408964276f, 0.8052451611f, 0.7711054087f, 0.7384130955f,
                                     0.7071067691f, 0.6771277785f, 0.6484197974f, 0.6209288836f,
                                     0.5946035385f, 0.5693942904f, 0.5452538729f, 0.5221368670f};
constexpr int kScaleBias = 128;
constexpr int kLargestScale = 255;

float PowerOfTwo(int exponent) { return std::bit_cast<float>((exponent + 127) << 23); }

}  // namespace

float ScaleOf(uint8_t index) { return kUp[index % 8 * 2] * PowerOfTwo((index - kScaleBias) >> 3); }

float InverseScaleOf(uint8_t index) {
  return kDown[index % 8 * 2] * PowerOfTwo(-((index - kScaleBias) >> 3));
}

std::optional<uint8_t> NearestScale(float rms) {
  // With rms = m · 2^e, 1 <= m < 2: i eighths of an octave if m lies beyond the middles below.
  const uint32_t bits = std::bit_cast<uint32_t>(rms);
  if (!(rms >= 0) || bits >= 0x7f800000u) return std::nullopt;
  const int exponent = static_cast<int>(bits >> 23) - 127;
  const float mantissa = std::bit_cast<float>((bits & 0x7fffffu) | 0x3f800000u);
  int index = kScaleBias + 8 * exponent;
  for (uint32_t middle = 1; middle < kSixteenth; middle += 2) index += mantissa >= kUp[middle];
  if (index > kLargestScale) return std::nullopt;
  return static_cast<uint8_t>(std::max(index, 0));
}

float StepSize(uint32_t index) {
  return kDown[index % kSixteenth] * PowerOfTwo(-static_cast<int>(index / kSixteenth));
}

float InverseStepSize(uint32_t index) {
  return kUp[index % kSixteenth] * PowerOfTwo(static_cast<int>(index / kSixteenth));
}

}  // namespace efedllm
