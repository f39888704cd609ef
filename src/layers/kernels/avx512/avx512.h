// The AVX-512 files' entry points. Row operations are AVX2's.
#ifndef EFEDLLM_LAYERS_KERNELS_AVX512_AVX512_H_
#define EFEDLLM_LAYERS_KERNELS_AVX512_AVX512_H_

#include <immintrin.h>

#include "layers/kernels/kernel_table.h"

namespace efedllm::avx512 {

void MatmulF32(const MatmulArgs& a);
void MatmulF16(const MatmulArgs& a);
void MatmulBf16(const MatmulArgs& a);
extern const QuantMatmuls kQuantMatmuls;
void Attend(const AttendArgs& a);

// As in the AVX2 kernels: whoever reads weights first asks for them this many bytes ahead.
[[maybe_unused]] static constexpr size_t kPrefetchBytes = 4096;

// The first `rows` of 16 lanes, or all.
[[maybe_unused]] static inline void StoreRows(float* y, size_t rows, __m512 v) {
  const unsigned mask = rows >= 16 ? 0xffffu : (1u << rows) - 1;
  _mm512_mask_storeu_ps(y, static_cast<__mmask16>(mask), v);
}

}  // namespace efedllm::avx512

#endif  // EFEDLLM_LAYERS_KERNELS_AVX512_AVX512_H_
