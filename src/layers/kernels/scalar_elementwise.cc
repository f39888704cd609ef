#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "layers/kernels/constants.h"
#include "layers/kernels/scalar.h"
#include "tensor/half.h"

namespace efedllm::scalar {

float Exp(float x) {
  if (x < kExpLow) return 0;
  if (x > kExpHigh) return std::numeric_limits<float>::infinity();
  const float shifted = std::fma(x, kLog2E, kRoundToInt);
  const float n = shifted - kRoundToInt;
  float r = std::fma(-n, kLn2High, x);
  r = std::fma(-n, kLn2Low, r);
  float p = kExpPoly[0];
  for (int i = 1; i < 6; ++i) p = std::fma(p, r, kExpPoly[i]);
  const float y = std::fma(p, r * r, r) + 1.0f;
  // In two steps: 2^128 is not a float. Subtraction of the bits leaves n.
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - kRoundToIntBits;
  const int32_t half = exponent >> 1;
  return y * std::bit_cast<float>((half + 127) << 23) *
         std::bit_cast<float>((exponent - half + 127) << 23);
}

float Tanh(float x) { return 1.0f - 2.0f / (Exp(x + x) + 1.0f); }

float Tree(const float* s) {
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

void Quantize(const float* x, size_t blocks, QuantBlock* out) {
  for (size_t b = 0; b < blocks; ++b, x += kQuantValues) {
    float amax = 0;
    for (size_t i = 0; i < kQuantValues; ++i) amax = std::max(amax, std::fabs(x[i]));
    const bool zero = amax < kQuantMin;
    out[b].d = zero ? 0.0f : amax / 127.0f;
    const float inverse = zero ? 0.0f : 127.0f / amax;
    out[b].sum[0] = out[b].sum[1] = 0;
    for (size_t i = 0; i < kQuantValues; ++i) {
      const float shifted = x[i] * inverse + kRoundToInt;
      out[b].q[i] = static_cast<int8_t>(std::bit_cast<int32_t>(shifted) - kRoundToIntBits);
      out[b].sum[i / 16] = static_cast<int16_t>(out[b].sum[i / 16] + out[b].q[i]);
    }
    out[b].offset = -128 * (out[b].sum[0] + out[b].sum[1]);
  }
}

void RmsNorm(const float* x, const float* weight, size_t n, float epsilon, float* y) {
  float partial[8] = {};
  for (size_t i = 0; i < n; ++i) partial[i % 8] = std::fma(x[i], x[i], partial[i % 8]);
  const float mean = Tree(partial) / static_cast<float>(n);
  const float scale = 1.0f / std::sqrt(mean + epsilon);
  for (size_t i = 0; i < n; ++i) y[i] = x[i] * scale * weight[i];
}

void Rope(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos,
          const float* sin) {
  for (size_t h = 0; h < heads; ++h, x += head_dim) {
    for (size_t i = 0; i < dims; i += 2) {
      const float a = x[i], b = x[i + 1];
      x[i] = std::fma(a, cos[i], -(b * sin[i]));
      x[i + 1] = std::fma(b, cos[i + 1], a * sin[i + 1]);
    }
  }
}

void RopeHalves(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos,
                const float* sin) {
  const size_t half = dims / 2;
  for (size_t h = 0; h < heads; ++h, x += head_dim) {
    for (size_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = std::fma(a, cos[i], -(b * sin[i]));
      x[i + half] = std::fma(b, cos[i + half], a * sin[i + half]);
    }
  }
}

void ToF16(const float* x, size_t n, uint16_t* out) {
  for (size_t i = 0; i < n; ++i) out[i] = F32ToF16(std::clamp(x[i], -kF16Max, kF16Max));
}

void SiluMul(float* gate, const float* up, size_t n) {
  for (size_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + Exp(-gate[i])) * up[i];
}

void GeluMul(float* gate, const float* up, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const float g = gate[i];
    const float cube = g * g * g;
    const float tanh = Tanh(kGeluScale * std::fma(kGeluCubic, cube, g));
    gate[i] = 0.5f * g * (1.0f + tanh) * up[i];
  }
}

void SoftCap(float* x, size_t n, float cap) {
  for (size_t i = 0; i < n; ++i) x[i] = cap * Tanh(x[i] / cap);
}

void Add(float* x, const float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] += y[i];
}

void AddScaled(float* y, const float* x, size_t n, float scale) {
  for (size_t i = 0; i < n; ++i) y[i] = std::fma(x[i], scale, y[i]);
}

void ExpRow(const float* x, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = Exp(x[i]);
}

}  // namespace efedllm::scalar
