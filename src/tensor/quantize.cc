#include "tensor/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/check.h"
#include "tensor/blocks.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

constexpr size_t kPart = 32;    // values that share a scale in most formats
constexpr size_t kBlock = 256;  // of K-quants
constexpr float kMostF16 = 65504;

void StoreF16(float value, uint8_t* out) {
  const uint16_t h = F32ToF16(std::clamp(value, -kMostF16, kMostF16));
  std::memcpy(out, &h, sizeof h);
}
float LoadF16(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, sizeof h);
  return F16ToF32(h);
}

int RoundTo(float x, int least, int most) {
  return std::clamp(static_cast<int>(std::lrint(x)), least, most);
}

// The nearest integers to x / d in [least, most].
void Round(const float* x, size_t n, float d, int least, int most, int* q) {
  const float inverse = d == 0 ? 0 : 1 / d;
  for (size_t i = 0; i < n; ++i) q[i] = RoundTo(x[i] * inverse, least, most);
}

// The scale d with the least weighted error of d·q, q integers in [-most - 1, most]: of some
// around the one that the largest value asks for, each improved by least squares.
float FindScale(const float* x, const float* weight, size_t n, int most) {
  float largest = 0;
  for (size_t i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  }
  if (largest == 0) return 0;
  constexpr int kTries = 12;
  float best = 0;
  double best_gain = -1;
  int q[kPart];
  for (int i = -kTries; i <= kTries; ++i) {
    // The side that has one value more gets the largest.
    Round(x, n, -largest / (static_cast<float>(most + 1) + 0.1f * static_cast<float>(i)), -most - 1,
          most, q);
    double xq = 0, qq = 0;
    for (size_t k = 0; k < n; ++k) {
      xq += double{weight[k]} * x[k] * q[k];
      qq += double{weight[k]} * q[k] * q[k];
    }
    // With d = xq / qq the error is Σ w·x² - xq² / qq.
    if (qq <= 0 || xq * xq / qq <= best_gain) continue;
    best_gain = xq * xq / qq;
    best = static_cast<float>(xq / qq);
  }
  return best;
}

void QuantizeQ8(const float* x, uint8_t* out) {
  float largest = 0;
  for (size_t i = 0; i < kPart; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float d = largest / 127, inverse = d == 0 ? 0 : 1 / d;
  StoreF16(d, out);
  for (size_t i = 0; i < kPart; ++i) {
    const int q = RoundTo(std::round(x[i] * inverse), -127, 127);
    out[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(q));
  }
}

// Q4_0 and Q5_0: d, the fifth bits where there are some, nibbles.
void QuantizeSymmetric(const float* x, const float* weight, int bits, uint8_t* out) {
  const int zero = 1 << (bits - 1);
  StoreF16(FindScale(x, weight, kPart, zero - 1), out);
  int q[kPart];
  Round(x, kPart, LoadF16(out), -zero, zero - 1, q);
  out += 2;
  if (bits == 5) {
    uint32_t fifth = 0;
    for (size_t i = 0; i < kPart; ++i) fifth |= static_cast<uint32_t>(q[i] + zero) >> 4 << i;
    std::memcpy(out, &fifth, sizeof fifth);
    out += sizeof fifth;
  }
  for (size_t i = 0; i < kPart / 2; ++i) {
    out[i] = static_cast<uint8_t>(((q[i] + zero) & 15) | ((q[i + kPart / 2] + zero) & 15) << 4);
  }
}

// scale·q - min, q in [0, most], min not negative.
struct Affine {
  float scale = 0, min = 0;
};

Affine FindAffine(const float* x, const float* weight, size_t n, int most) {
  const float low = std::min(0.0f, *std::min_element(x, x + n));
  const float high = std::max(*std::max_element(x, x + n), low);
  if (high == low) return {0, -low};
  constexpr int kTries = 20;
  Affine best;
  double best_error = -1;
  for (int i = 0; i <= kTries; ++i) {
    const float inverse =
        (static_cast<float>(most) - 1 + 0.1f * static_cast<float>(i)) / (high - low);
    double w = 0, wq = 0, wqq = 0, wx = 0, wxq = 0, wxx = 0;
    for (size_t k = 0; k < n; ++k) {
      const double q = RoundTo((x[k] - low) * inverse, 0, most), weighs = weight[k];
      w += weighs, wq += weighs * q, wqq += weighs * q * q;
      wx += weighs * x[k], wxq += weighs * x[k] * q, wxx += weighs * double{x[k]} * x[k];
    }
    // Least squares for x ≈ scale·q + offset; an offset above 0 can't be stored.
    const double determinant = w * wqq - wq * wq;
    if (determinant <= 0 || wqq <= 0) continue;
    double scale = (w * wxq - wx * wq) / determinant, offset = (wqq * wx - wq * wxq) / determinant;
    if (offset > 0) scale = wxq / wqq, offset = 0;
    const double error = wxx - 2 * scale * wxq - 2 * offset * wx + scale * scale * wqq +
                         2 * scale * offset * wq + offset * offset * w;
    if (best_error >= 0 && error >= best_error) continue;
    best_error = error;
    best = {static_cast<float>(scale), static_cast<float>(-offset)};
  }
  return best_error < 0 ? Affine{(high - low) / static_cast<float>(most), -low} : best;
}

// Eight scales and mins of six bits in 12 bytes.
void StoreScalesAndMins(const int* scales, const int* mins, uint8_t* out) {
  for (int i = 0; i < 4; ++i) {
    out[i] = static_cast<uint8_t>(scales[i] | scales[i + 4] >> 4 << 6);
    out[i + 4] = static_cast<uint8_t>(mins[i] | mins[i + 4] >> 4 << 6);
    out[i + 8] = static_cast<uint8_t>((scales[i + 4] & 15) | (mins[i + 4] & 15) << 4);
  }
}

void QuantizeQ4K(const float* x, const float* weight, uint8_t* out) {
  constexpr size_t kParts = kBlock / kPart;
  Affine parts[kParts];
  float most_scale = 0, most_min = 0;
  for (size_t i = 0; i < kParts; ++i) {
    parts[i] = FindAffine(x + i * kPart, weight + i * kPart, kPart, 15);
    most_scale = std::max(most_scale, parts[i].scale);
    most_min = std::max(most_min, parts[i].min);
  }
  StoreF16(most_scale / 63, out);
  StoreF16(most_min / 63, out + 2);
  const float d = LoadF16(out), m = LoadF16(out + 2);
  int scales[kParts], mins[kParts];
  uint8_t codes[kBlock];
  for (size_t i = 0; i < kParts; ++i) {
    scales[i] = d == 0 ? 0 : RoundTo(parts[i].scale / d, 0, 63);
    mins[i] = m == 0 ? 0 : RoundTo(parts[i].min / m, 0, 63);
    const float scale = d * static_cast<float>(scales[i]), min = m * static_cast<float>(mins[i]);
    for (size_t k = i * kPart; k < (i + 1) * kPart; ++k) {
      codes[k] = static_cast<uint8_t>(scale == 0 ? 0 : RoundTo((x[k] + min) / scale, 0, 15));
    }
  }
  StoreScalesAndMins(scales, mins, out + 4);
  for (size_t k = 0; k < kBlock / 2; ++k) {
    const size_t low = k / kPart * 2 * kPart + k % kPart;
    out[16 + k] = static_cast<uint8_t>(codes[low] | codes[low + kPart] << 4);
  }
}

void QuantizeQ6K(const float* x, const float* weight, uint8_t* out) {
  constexpr size_t kParts = 16, kValues = kBlock / kParts;
  float scales[kParts], largest = 0;
  for (size_t i = 0; i < kParts; ++i) {
    scales[i] = FindScale(x + i * kValues, weight + i * kValues, kValues, 31);
    if (std::fabs(scales[i]) > std::fabs(largest)) largest = scales[i];
  }
  uint8_t* const low = out;
  uint8_t* const high = out + 128;
  std::memset(out, 0, BlockBytes(DType::kQ6_K));
  StoreF16(-largest / 128, out + 208);
  const float d = LoadF16(out + 208);
  for (size_t i = 0; i < kParts; ++i) {
    const int scale = d == 0 ? 0 : RoundTo(scales[i] / d, -128, 127);
    out[192 + i] = static_cast<uint8_t>(static_cast<int8_t>(scale));
    int q[kValues];
    Round(x + i * kValues, kValues, d * static_cast<float>(scale), -32, 31, q);
    for (size_t k = 0; k < kValues; ++k) {
      const size_t at = i * kValues + k, half = at / 128, field = at % 128 / 32, column = at % 32;
      const int code = q[k] + 32;
      low[half * 64 + field % 2 * 32 + column] |=
          static_cast<uint8_t>((code & 15) << (field / 2 * 4));
      high[half * 32 + column] |= static_cast<uint8_t>(code >> 4 << (field * 2));
    }
  }
}

void QuantizeBlock(DType dtype, const float* x, const float* weight, uint8_t* out) {
  switch (dtype) {
    case DType::kQ8_0:
      return QuantizeQ8(x, out);
    case DType::kQ5_0:
      return QuantizeSymmetric(x, weight, 5, out);
    case DType::kQ4_0:
      return QuantizeSymmetric(x, weight, 4, out);
    case DType::kQ4_K:
      return QuantizeQ4K(x, weight, out);
    case DType::kQ6_K:
      return QuantizeQ6K(x, weight, out);
    default:
      CheckFailed(__FILE__, __LINE__, "there is no quantizer for this type");
  }
}

}  // namespace

bool CanQuantize(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kQ8_0:
    case DType::kQ6_K:
    case DType::kQ5_0:
    case DType::kQ4_K:
    case DType::kQ4_0:
      return true;
    default:
      return false;
  }
}

void QuantizeRow(DType dtype, const float* x, size_t n, const float* importance, uint8_t* out) {
  if (dtype == DType::kF32) return void(std::memcpy(out, x, n * sizeof(float)));
  if (dtype == DType::kF16) {
    for (size_t i = 0; i < n; ++i) StoreF16(x[i], out + 2 * i);
    return;
  }
  if (dtype == DType::kBF16) {
    for (size_t i = 0; i < n; ++i) {
      const uint16_t h = F32ToBf16(x[i]);
      std::memcpy(out + 2 * i, &h, sizeof h);
    }
    return;
  }
  const size_t values = BlockValues(dtype), bytes = BlockBytes(dtype);
  CHECK(n % values == 0);
  float weight[kMaxBlockValues];
  for (size_t i = 0; i < n; i += values, out += bytes) {
    for (size_t k = 0; k < values; ++k) weight[k] = importance == nullptr ? 1 : importance[i + k];
    QuantizeBlock(dtype, x + i, weight, out);
  }
}

}  // namespace efedllm
