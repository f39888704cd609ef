// What the AVX2 files share: declarations, and helpers that every file compiles for itself (static:
// see layers/CMakeLists.txt).
#ifndef EFEDLLM_LAYERS_KERNELS_AVX2_AVX2_H_
#define EFEDLLM_LAYERS_KERNELS_AVX2_AVX2_H_

#include <immintrin.h>

#include "layers/kernels/constants.h"
#include "layers/kernels/kernel_table.h"

namespace efedllm::avx2 {

void MatmulF32(const MatmulArgs& a);
void MatmulF16(const MatmulArgs& a);
void MatmulBf16(const MatmulArgs& a);
extern const QuantMatmuls kQuantMatmuls;
extern const QuantMatmuls kPanelMatmuls;  // of more than one column
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

static constexpr size_t kRows = 16;  // of a group

// The first `rows` of a group's sums, or all.
[[maybe_unused]] static inline void StoreRows(float* y, size_t rows, __m256 low, __m256 high) {
  if (rows >= kRows) {
    _mm256_storeu_ps(y, low);
    _mm256_storeu_ps(y + 8, high);
    return;
  }
  alignas(32) float all[kRows];
  _mm256_store_ps(all, low);
  _mm256_store_ps(all + 8, high);
  __builtin_memcpy(y, all, rows * sizeof(float));
}

// The first columns to read a group are bound by memory. Their arithmetic hides the loads behind it
// from the CPU, so that weights are asked for this many bytes ahead (measured on Sapphire Rapids,
// Q8_0: 79 % of the read bandwidth without, 95 % with).
[[maybe_unused]] static constexpr size_t kPrefetchBytes = 8192;

[[maybe_unused]] static inline __m256 ExpVector(__m256 x) {
  const __m256 round = _mm256_set1_ps(kRoundToInt);
  const __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(kLog2E), round);
  const __m256 n = _mm256_sub_ps(shifted, round);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(kLn2High), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(kLn2Low), r);
  __m256 p = _mm256_set1_ps(kExpPoly[0]);
  for (int i = 1; i < 6; ++i) p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpPoly[i]));
  const __m256 y = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
  const __m256i exponent =
      _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(kRoundToIntBits));
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i half = _mm256_srai_epi32(exponent, 1);
  const __m256i rest = _mm256_sub_epi32(exponent, half);
  const __m256 low = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 high = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  __m256 result = _mm256_mul_ps(_mm256_mul_ps(y, low), high);
  const __m256 infinity = _mm256_set1_ps(__builtin_inff());
  result =
      _mm256_blendv_ps(result, infinity, _mm256_cmp_ps(x, _mm256_set1_ps(kExpHigh), _CMP_GT_OQ));
  return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(kExpLow), _CMP_LT_OQ), result);
}

[[maybe_unused]] static inline __m256 TanhVector(__m256 x) {
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 e = ExpVector(_mm256_add_ps(x, x));
  return _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(e, one)));
}

// ((s0+s4)+(s2+s6)) + ((s1+s5)+(s3+s7)), as the definition's Tree.
[[maybe_unused]] static inline float Tree(__m256 s) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// The first n < 8 floats, zeros behind them.
[[maybe_unused]] static inline __m256 LoadTail(const float* p, size_t n) {
  float tail[8] = {};
  __builtin_memcpy(tail, p, n * sizeof(float));
  return _mm256_loadu_ps(tail);
}

[[maybe_unused]] static inline void StoreTail(float* p, size_t n, __m256 v) {
  float tail[8];
  _mm256_storeu_ps(tail, v);
  __builtin_memcpy(p, tail, n * sizeof(float));
}

}  // namespace efedllm::avx2

#endif  // EFEDLLM_LAYERS_KERNELS_AVX2_AVX2_H_
