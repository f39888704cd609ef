#include "layers/kernels/neon/neon.h"

namespace efedllm::neon {
namespace {

float32x4_t Silu(float32x4_t x) {
  return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), ExpVector(vnegq_f32(x))));
}

float32x4_t Gelu(float32x4_t g) {
  const float32x4_t cube = vmulq_f32(vmulq_f32(g, g), g);
  const float32x4_t inner = vfmaq_f32(g, vdupq_n_f32(kGeluCubic), cube);
  const float32x4_t tanh = TanhVector(vmulq_f32(vdupq_n_f32(kGeluScale), inner));
  return vmulq_f32(vmulq_f32(vdupq_n_f32(0.5f), g), vaddq_f32(vdupq_n_f32(1.0f), tanh));
}

// gate = activation(gate) · up.
template <float32x4_t (*kActivation)(float32x4_t)>
void GateMul(float* gate, const float* up, size_t n) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    vst1q_f32(gate + i, vmulq_f32(kActivation(vld1q_f32(gate + i)), vld1q_f32(up + i)));
  }
  if (i < n) {
    const float32x4_t g = kActivation(LoadTail(gate + i, n - i));
    StoreTail(gate + i, n - i, vmulq_f32(g, LoadTail(up + i, n - i)));
  }
}

float32x4_t Capped(float32x4_t x, float32x4_t cap) {
  return vmulq_f32(cap, TanhVector(vdivq_f32(x, cap)));
}

uint16x4_t HalvesOf(float32x4_t x) {
  const float32x4_t max = vdupq_n_f32(kF16Max), min = vdupq_n_f32(-kF16Max);
  return vreinterpret_u16_f16(vcvt_f16_f32(vmaxq_f32(vminq_f32(x, max), min)));
}

// Eight floats to int8, to nearest even.
int8x8_t RoundToInt8(float32x4_t low, float32x4_t high) {
  return vmovn_s16(vcombine_s16(vmovn_s32(vcvtnq_s32_f32(low)), vmovn_s32(vcvtnq_s32_f32(high))));
}

}  // namespace

void Exp(const float* x, size_t n, float* y) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(y + i, ExpVector(vld1q_f32(x + i)));
  if (i < n) StoreTail(y + i, n - i, ExpVector(LoadTail(x + i, n - i)));
}

void SiluMul(float* gate, const float* up, size_t n) { GateMul<Silu>(gate, up, n); }
void GeluMul(float* gate, const float* up, size_t n) { GateMul<Gelu>(gate, up, n); }

void SoftCap(float* x, size_t n, float cap) {
  const float32x4_t caps = vdupq_n_f32(cap);
  size_t i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(x + i, Capped(vld1q_f32(x + i), caps));
  if (i < n) StoreTail(x + i, n - i, Capped(LoadTail(x + i, n - i), caps));
}

void ToF16(const float* x, size_t n, uint16_t* out) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) vst1_u16(out + i, HalvesOf(vld1q_f32(x + i)));
  if (i < n) {
    uint16_t tail[4];
    vst1_u16(tail, HalvesOf(LoadTail(x + i, n - i)));
    __builtin_memcpy(out + i, tail, (n - i) * sizeof(uint16_t));
  }
}

void Add(float* x, const float* y, size_t n) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(x + i, vaddq_f32(vld1q_f32(x + i), vld1q_f32(y + i)));
  for (; i < n; ++i) x[i] += y[i];
}

void AddScaled(float* y, const float* x, size_t n, float scale) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    vst1q_f32(y + i, vfmaq_f32(vld1q_f32(y + i), vld1q_f32(x + i), vdupq_n_f32(scale)));
  }
  for (; i < n; ++i) y[i] = __builtin_fmaf(x[i], scale, y[i]);
}

void RmsNorm(const float* x, const float* weight, size_t n, float epsilon, float* y) {
  float32x4_t low = vdupq_n_f32(0), high = low;
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + i + 4);
    low = vfmaq_f32(low, a, a);
    high = vfmaq_f32(high, b, b);
  }
  if (i < n) {  // the zeros behind the tail add nothing
    float tail[8] = {};
    __builtin_memcpy(tail, x + i, (n - i) * sizeof(float));
    const float32x4_t a = vld1q_f32(tail), b = vld1q_f32(tail + 4);
    low = vfmaq_f32(low, a, a);
    high = vfmaq_f32(high, b, b);
  }
  const float mean = Tree(low, high) / static_cast<float>(n);
  const float scale = 1.0f / __builtin_sqrtf(mean + epsilon);
  for (i = 0; i + 4 <= n; i += 4) {
    vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), scale), vld1q_f32(weight + i)));
  }
  for (; i < n; ++i) y[i] = x[i] * scale * weight[i];
}

void Rope(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos,
          const float* sin) {
  const uint32x4_t even_signs = vreinterpretq_u32_u64(vdupq_n_u64(0x80000000u));
  for (size_t h = 0; h < heads; ++h, x += head_dim) {
    size_t i = 0;
    for (; i + 4 <= dims; i += 4) {
      const float32x4_t v = vld1q_f32(x + i);
      const float32x4_t crossed = vmulq_f32(vrev64q_f32(v), vld1q_f32(sin + i));
      const uint32x4_t turned = veorq_u32(vreinterpretq_u32_f32(crossed), even_signs);
      vst1q_f32(x + i, vfmaq_f32(vreinterpretq_f32_u32(turned), v, vld1q_f32(cos + i)));
    }
    for (; i < dims; i += 2) {
      const float a = x[i], b = x[i + 1];
      x[i] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
      x[i + 1] = __builtin_fmaf(b, cos[i + 1], a * sin[i + 1]);
    }
  }
}

void RopeHalves(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos,
                const float* sin) {
  const size_t half = dims / 2;
  for (size_t h = 0; h < heads; ++h, x += head_dim) {
    size_t i = 0;
    for (; i + 4 <= half; i += 4) {
      const float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + half + i);
      const float32x4_t b_sin = vmulq_f32(b, vld1q_f32(sin + i));
      const float32x4_t a_sin = vmulq_f32(a, vld1q_f32(sin + half + i));
      vst1q_f32(x + i, vfmaq_f32(vnegq_f32(b_sin), a, vld1q_f32(cos + i)));
      vst1q_f32(x + half + i, vfmaq_f32(a_sin, b, vld1q_f32(cos + half + i)));
    }
    for (; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
      x[i + half] = __builtin_fmaf(b, cos[i + half], a * sin[i + half]);
    }
  }
}

void Quantize(const float* x, size_t blocks, QuantBlock* out) {
  for (size_t b = 0; b < blocks; ++b, x += kQuantValues) {
    float32x4_t v[8], amax4 = vdupq_n_f32(0);
    for (int j = 0; j < 8; ++j) {
      v[j] = vld1q_f32(x + 4 * j);
      amax4 = vmaxq_f32(amax4, vabsq_f32(v[j]));
    }
    const float amax = vmaxvq_f32(amax4);
    const bool zero = amax < kQuantMin;
    const float inverse = zero ? 0.0f : 127.0f / amax;
    for (float32x4_t& four : v) four = vmulq_n_f32(four, inverse);
    out[b].d = zero ? 0.0f : amax / 127.0f;
    for (int h = 0; h < 2; ++h) {
      const float32x4_t* of = v + 4 * h;
      const int8x16_t q = vcombine_s8(RoundToInt8(of[0], of[1]), RoundToInt8(of[2], of[3]));
      vst1q_s8(out[b].q + 16 * h, q);
      out[b].sum[h] = vaddlvq_s8(q);
    }
    out[b].offset = -128 * (out[b].sum[0] + out[b].sum[1]);
  }
}

}  // namespace efedllm::neon
