// The AVX-512 files' entry points. Row operations are AVX2's.
#ifndef EFEDLLM_LAYERS_KERNELS_AVX512_AVX512_H_
#define EFEDLLM_LAYERS_KERNELS_AVX512_AVX512_H_

#include <immintrin.h>

#include "layers/kernels/constants.h"
#include "layers/kernels/kernel_table.h"

namespace efedllm::avx512 {

void MatmulF32(const MatmulArgs& a);
void MatmulF16(const MatmulArgs& a);
void MatmulBf16(const MatmulArgs& a);
extern const QuantMatmuls kQuantMatmuls;
extern const QuantMatmuls kPanelMatmuls;  // of more than one column
void Attend(const AttendArgs& a);

// As in the AVX2 kernels: whoever reads weights first asks for them this many bytes ahead.
[[maybe_unused]] static constexpr size_t kPrefetchBytes = 8192;

// The first `rows` of 16 lanes, or all.
[[maybe_unused]] static inline void StoreRows(float* y, size_t rows, __m512 v) {
  const unsigned mask = rows >= 16 ? 0xffffu : (1u << rows) - 1;
  _mm512_mask_storeu_ps(y, static_cast<__mmask16>(mask), v);
}

// As avx2::ExpVector, which explains it.
[[maybe_unused]] static inline __m512 ExpVector(__m512 x) {
  const __m512 round = _mm512_set1_ps(kRoundToInt);
  const __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(kLog2E), round);
  const __m512 n = _mm512_sub_ps(shifted, round);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(kLn2High), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(kLn2Low), r);
  __m512 p = _mm512_set1_ps(kExpPoly[0]);
  for (int i = 1; i < 6; ++i) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpPoly[i]));
  const __m512 y = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
  const __m512i exponent =
      _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(kRoundToIntBits));
  const __m512i bias = _mm512_set1_epi32(127);
  const __m512i half = _mm512_srai_epi32(exponent, 1);
  const __m512i rest = _mm512_sub_epi32(exponent, half);
  const __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
  const __m512 high = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(rest, bias), 23));
  const __m512 result = _mm512_mul_ps(_mm512_mul_ps(y, low), high);
  const __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpHigh), _CMP_GT_OQ);
  const __mmask16 not_below = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpLow), _CMP_NLT_UQ);
  return _mm512_maskz_mov_ps(not_below,
                             _mm512_mask_mov_ps(result, above, _mm512_set1_ps(__builtin_inff())));
}

}  // namespace efedllm::avx512

#endif  // EFEDLLM_LAYERS_KERNELS_AVX512_AVX512_H_
