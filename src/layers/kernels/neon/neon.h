// What the NEON files share: declarations, and helpers that every file compiles for itself.
#ifndef EFEDLLM_LAYERS_KERNELS_NEON_NEON_H_
#define EFEDLLM_LAYERS_KERNELS_NEON_NEON_H_

#include <arm_neon.h>

#include "layers/kernels/constants.h"
#include "layers/kernels/kernel_table.h"

namespace efedllm::neon {

void MatmulF32(const MatmulArgs& a);
void MatmulF16(const MatmulArgs& a);
void MatmulBf16(const MatmulArgs& a);
extern const QuantMatmuls kQuantMatmuls;
extern const QuantMatmuls kQuantDotprodMatmuls;  // needs int8 dot products
void Quantize(const float* x, size_t blocks, QuantBlock* out);
void RmsNorm(const float* x, const float* weight, size_t n, float epsilon, float* y);
void Rope(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos, const float* sin);
void RopeHalves(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos,
                const float* sin);
void Attend(const AttendArgs& a);
void ToF16(const float* x, size_t n, uint16_t* out);
void SiluMul(float* gate, const float* up, size_t n);
void GeluMul(float* gate, const float* up, size_t n);
void SoftCap(float* x, size_t n, float cap);
void Add(float* x, const float* y, size_t n);
void AddScaled(float* y, const float* x, size_t n, float scale);
void Exp(const float* x, size_t n, float* y);

[[maybe_unused]] static inline float32x4_t ExpVector(float32x4_t x) {
  const float32x4_t round = vdupq_n_f32(kRoundToInt);
  const float32x4_t shifted = vfmaq_f32(round, x, vdupq_n_f32(kLog2E));
  const float32x4_t n = vsubq_f32(shifted, round);
  float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(kLn2High));
  r = vfmsq_f32(r, n, vdupq_n_f32(kLn2Low));
  float32x4_t p = vdupq_n_f32(kExpPoly[0]);
  for (int i = 1; i < 6; ++i) p = vfmaq_f32(vdupq_n_f32(kExpPoly[i]), p, r);
  const float32x4_t y = vaddq_f32(vfmaq_f32(r, p, vmulq_f32(r, r)), vdupq_n_f32(1.0f));
  const int32x4_t exponent =
      vsubq_s32(vreinterpretq_s32_f32(shifted), vdupq_n_s32(kRoundToIntBits));
  const int32x4_t bias = vdupq_n_s32(127), half = vshrq_n_s32(exponent, 1);
  const int32x4_t low = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const int32x4_t high = vshlq_n_s32(vaddq_s32(vsubq_s32(exponent, half), bias), 23);
  const float32x4_t scaled = vmulq_f32(y, vreinterpretq_f32_s32(low));
  float32x4_t result = vmulq_f32(scaled, vreinterpretq_f32_s32(high));
  result = vbslq_f32(vcgtq_f32(x, vdupq_n_f32(kExpHigh)), vdupq_n_f32(__builtin_inff()), result);
  return vbslq_f32(vcltq_f32(x, vdupq_n_f32(kExpLow)), vdupq_n_f32(0), result);
}

[[maybe_unused]] static inline float32x4_t TanhVector(float32x4_t x) {
  const float32x4_t one = vdupq_n_f32(1.0f);
  const float32x4_t e = ExpVector(vaddq_f32(x, x));
  return vsubq_f32(one, vdivq_f32(vdupq_n_f32(2.0f), vaddq_f32(e, one)));
}

// ((s0+s4)+(s2+s6)) + ((s1+s5)+(s3+s7)), as the definition's Tree.
[[maybe_unused]] static inline float Tree(float32x4_t low, float32x4_t high) {
  const float32x4_t four = vaddq_f32(low, high);
  return vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}

// The first n < 4 floats, zeros behind them.
[[maybe_unused]] static inline float32x4_t LoadTail(const float* p, size_t n) {
  float tail[4] = {};
  __builtin_memcpy(tail, p, n * sizeof(float));
  return vld1q_f32(tail);
}

[[maybe_unused]] static inline void StoreTail(float* p, size_t n, float32x4_t v) {
  float tail[4];
  vst1q_f32(tail, v);
  __builtin_memcpy(p, tail, n * sizeof(float));
}

}  // namespace efedllm::neon

#endif  // EFEDLLM_LAYERS_KERNELS_NEON_NEON_H_
