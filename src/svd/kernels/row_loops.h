// Loops over a row that compilers vectorize: each per-ISA file has its own copy, compiled for its
// ISA. The order of sums is part of the definition; nothing is fused (-ffp-contract=off).
#ifndef EFEDLLM_SVD_KERNELS_ROW_LOOPS_H_
#define EFEDLLM_SVD_KERNELS_ROW_LOOPS_H_

#include <cstddef>
#include <cstdint>

namespace efedllm {
// NOLINTNEXTLINE(google-build-namespaces): the linker must not share one ISA's copy with others.
namespace {

// Adding it rounds what is smaller than 2^22 to an integer, ties to even; the integer is in the low
// bits then.
constexpr float kRoundToInt = 12582912.0f;
constexpr float kInt16Limit = 32767.0f;

inline uint32_t BitsOf(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float FloatOf(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

void Center(const float* x, const float* mean, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = x[i] - mean[i];
}

float RootMeanSquare(const float* x, size_t n) {
  float s[8] = {};
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) s[lane] += x[i + lane] * x[i + lane];
  }
  for (size_t lane = 0; i + lane < n; ++lane) s[lane] += x[i + lane] * x[i + lane];
  const float sum = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  return __builtin_sqrtf(sum / static_cast<float>(n));
}

// value < 2^22
inline int32_t Nearest(float value, float limit, uint32_t& largest) {
  const uint32_t magnitude = BitsOf(value) & 0x7fffffffu;
  largest = magnitude > largest ? magnitude : largest;
  float limited = value < -limit ? -limit : value;
  limited = limited > limit ? limit : limited;
  return static_cast<int32_t>(BitsOf(limited + kRoundToInt)) -
         static_cast<int32_t>(BitsOf(kRoundToInt));
}

uint32_t RoundToInt16(const float* from, size_t n, float factor, int16_t* to) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) {
    to[i] = static_cast<int16_t>(Nearest(from[i] * factor, kInt16Limit, largest));
  }
  return largest;
}

uint32_t RoundFloats(const float* from, size_t n, float factor, int32_t* to) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) to[i] = Nearest(from[i] * factor, kMaxTrellisInput, largest);
  return largest;
}

uint32_t RoundSums(const int32_t* from, size_t n, const float* factors, int32_t* to) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) {
    to[i] = Nearest(static_cast<float>(from[i]) * factors[i], kMaxTrellisInput, largest);
  }
  return largest;
}

void RestoreInt16(const int16_t* numbers, const float* mean, size_t n, float factor, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<float>(numbers[i]) * factor + mean[i];
}

void RestoreInt32(const int32_t* numbers, const float* mean, size_t n, float factor, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<float>(numbers[i]) * factor + mean[i];
}

double SquaredError(const float* a, const float* b, size_t n) {
  double s[8] = {};
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) {
      const double difference = static_cast<double>(a[i + lane]) - static_cast<double>(b[i + lane]);
      s[lane] += difference * difference;
    }
  }
  for (size_t lane = 0; i + lane < n; ++lane) {
    const double difference = static_cast<double>(a[i + lane]) - static_cast<double>(b[i + lane]);
    s[lane] += difference * difference;
  }
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

// As tensor/half.h, without branches.
void ToF16(const float* x, size_t n, uint16_t* y) {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t bits = BitsOf(x[i]);
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    // Below the smallest normal: adding 0.5 puts the steps of 2^-24 at the end of the mantissa.
    const uint32_t subnormal = BitsOf(FloatOf(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
    half = magnitude >= 0x477ff000u ? 0x7c00u : half;
    y[i] = static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u));
  }
}

void FromF16(const uint16_t* x, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t half = x[i];
    const uint32_t magnitude = (half & 0x7fffu) << 13;
    // Both are exact: an exponent moved by 112, or a count of 2^-24.
    const uint32_t normal = magnitude + (112u << 23);
    const uint32_t subnormal =
        BitsOf(static_cast<float>(static_cast<int32_t>(half & 0x3ffu)) * 0x1p-24f);
    uint32_t bits = (half & 0x7c00u) == 0 ? subnormal : normal;
    bits = (half & 0x7c00u) == 0x7c00u ? (magnitude | 0x7f800000u) : bits;
    y[i] = FloatOf(bits | (half & 0x8000u) << 16);
  }
}

void ToInt8(const float* x, size_t n, float scale, int8_t* y) {
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<int8_t>(BitsOf(x[i] / scale + kRoundToInt));
}

void FromInt8(const int8_t* x, size_t n, float scale, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<float>(x[i]) * scale;
}

}  // namespace
}  // namespace efedllm

#endif  // EFEDLLM_SVD_KERNELS_ROW_LOOPS_H_
