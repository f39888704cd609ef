// f32, f16 and bf16 weights times f32 activations.
#include "layers/kernels/avx2/avx2.h"

namespace efedllm::avx2 {
namespace {

// Eight weights, widened; i counts weights.
struct F32 {
  static constexpr size_t kBytes = 4;
  static __m256 Load(const uint8_t* p) { return _mm256_load_ps(reinterpret_cast<const float*>(p)); }
};
struct F16 {
  static constexpr size_t kBytes = 2;
  static __m256 Load(const uint8_t* p) {
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
  }
};
struct Bf16 {
  static constexpr size_t kBytes = 2;
  static __m256 Load(const uint8_t* p) {
    const __m128i v = _mm_load_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
  }
};

// kGroups groups of 16 rows from row first on, times kColumns columns from column c on. One row of
// activations alone needs two groups, to have enough sums in flight.
template <class W, int kGroups, int kColumns>
void Tile(const MatmulArgs& a, size_t first, size_t c) {
  const uint8_t* w = a.w + first / kRows * a.group_bytes;
  const float* x = static_cast<const float*>(a.x) + c * a.x_stride;
  __m256 acc[kGroups][kColumns][2];
  for (auto& group : acc) {
    for (auto& column : group) column[0] = column[1] = _mm256_setzero_ps();
  }
  for (size_t k = 0; k < a.k; ++k, w += kRows * W::kBytes) {
    for (int g = 0; g < kGroups; ++g) {
      const uint8_t* v = w + g * a.group_bytes;
      if (c == 0) _mm_prefetch(v + kPrefetchBytes, _MM_HINT_T1);
      const __m256 low = W::Load(v), high = W::Load(v + 8 * W::kBytes);
      for (int j = 0; j < kColumns; ++j) {
        const __m256 b = _mm256_broadcast_ss(x + j * a.x_stride + k);
        acc[g][j][0] = _mm256_fmadd_ps(low, b, acc[g][j][0]);
        acc[g][j][1] = _mm256_fmadd_ps(high, b, acc[g][j][1]);
      }
    }
  }
  for (int g = 0; g < kGroups; ++g) {
    const size_t row = first + g * kRows;
    for (int j = 0; j < kColumns; ++j) {
      StoreRows(a.y + (c + j) * a.y_stride + row, a.rows - row, acc[g][j][0], acc[g][j][1]);
    }
  }
}

template <class W>
void Columns(const MatmulArgs& a, size_t row) {
  size_t c = 0;
  for (; c + 6 <= a.columns; c += 6) Tile<W, 1, 6>(a, row, c);
  switch (a.columns - c) {
    case 5:
      return Tile<W, 1, 5>(a, row, c);
    case 4:
      return Tile<W, 1, 4>(a, row, c);
    case 3:
      return Tile<W, 1, 3>(a, row, c);
    case 2:
      return Tile<W, 1, 2>(a, row, c);
    case 1:
      return Tile<W, 1, 1>(a, row, c);
  }
}

template <class W>
void Matmul(const MatmulArgs& a) {
  size_t row = 0;
  if (a.columns == 1) {
    for (; row + kRows < a.rows; row += 2 * kRows) Tile<W, 2, 1>(a, row, 0);
  }
  for (; row < a.rows; row += kRows) Columns<W>(a, row);
}

}  // namespace

void MatmulF32(const MatmulArgs& a) { Matmul<F32>(a); }
void MatmulF16(const MatmulArgs& a) { Matmul<F16>(a); }
void MatmulBf16(const MatmulArgs& a) { Matmul<Bf16>(a); }

}  // namespace efedllm::avx2
