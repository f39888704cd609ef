// f32, f16 and bf16 weights times f32 activations.
#include "layers/kernels/avx512/avx512.h"

namespace efedllm::avx512 {
namespace {

constexpr size_t kRows = 16;

// The weights of a group's 16 rows for one input, widened.
struct F32 {
  static constexpr size_t kBytes = 4;
  static __m512 Load(const uint8_t* p) { return _mm512_load_ps(p); }
};
struct F16 {
  static constexpr size_t kBytes = 2;
  static __m512 Load(const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
  }
};
struct Bf16 {
  static constexpr size_t kBytes = 2;
  static __m512 Load(const uint8_t* p) {
    const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
  }
};

// kGroups groups of 16 rows from row first on, times kColumns columns from column c on.
template <class W, int kGroups, int kColumns>
void Tile(const MatmulArgs& a, size_t first, size_t c) {
  const uint8_t* w = a.w + first / kRows * a.group_bytes;
  const float* x = static_cast<const float*>(a.x) + c * a.x_stride;
  __m512 acc[kGroups][kColumns];
  for (auto& group : acc) {
    for (__m512& v : group) v = _mm512_setzero_ps();
  }
  for (size_t k = 0; k < a.k; ++k, w += kRows * W::kBytes) {
    __m512 v[kGroups];
    for (int g = 0; g < kGroups; ++g) {
      if (c == 0) _mm_prefetch(w + g * a.group_bytes + kPrefetchBytes, _MM_HINT_T1);
      v[g] = W::Load(w + g * a.group_bytes);
    }
    for (int j = 0; j < kColumns; ++j) {
      const __m512 b = _mm512_set1_ps(x[j * a.x_stride + k]);
      for (int g = 0; g < kGroups; ++g) acc[g][j] = _mm512_fmadd_ps(v[g], b, acc[g][j]);
    }
  }
  for (int g = 0; g < kGroups; ++g) {
    const size_t row = first + g * kRows;
    for (int j = 0; j < kColumns; ++j) {
      StoreRows(a.y + (c + j) * a.y_stride + row, a.rows - row, acc[g][j]);
    }
  }
}

template <class W, int kGroups>
void Columns(const MatmulArgs& a, size_t row) {
  size_t c = 0;
  for (; c + 8 <= a.columns; c += 8) Tile<W, kGroups, 8>(a, row, c);
  if (a.columns - c >= 4) {
    Tile<W, kGroups, 4>(a, row, c);
    c += 4;
  }
  switch (a.columns - c) {
    case 3:
      return Tile<W, kGroups, 3>(a, row, c);
    case 2:
      return Tile<W, kGroups, 2>(a, row, c);
    case 1:
      return Tile<W, kGroups, 1>(a, row, c);
  }
}

// Several groups at once keep enough sums in flight.
template <class W>
void Matmul(const MatmulArgs& a) {
  size_t row = 0;
  if (a.columns < 4) {
    for (; row + 3 * kRows < a.rows; row += 4 * kRows) Columns<W, 4>(a, row);
  }
  for (; row + kRows < a.rows; row += 2 * kRows) Columns<W, 2>(a, row);
  if (row < a.rows) Columns<W, 1>(a, row);
}

}  // namespace

void MatmulF32(const MatmulArgs& a) { Matmul<F32>(a); }
void MatmulF16(const MatmulArgs& a) { Matmul<F16>(a); }
void MatmulBf16(const MatmulArgs& a) { Matmul<Bf16>(a); }

}  // namespace efedllm::avx512
