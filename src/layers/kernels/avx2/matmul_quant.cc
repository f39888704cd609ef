// Block-format weights times int8 activations: one column, bound by memory, from here; more as
// panels (matmul_panel.cc). vpmaddubsw adds two products of unsigned weights and signed activations
// to an int16, which saturates: as many of these are added as are sure to fit, and multiplied by
// the scale on the way to int32.
#include <utility>

#include "layers/kernels/avx2/quant_weights.h"

namespace efedllm::avx2 {
namespace {

// The exact products of a block with one column, times the scales.
template <QuantFormat kFormat>
inline void Dots(const BlockParts& p, const QuantBlock& x, const Scales& s, __m256i* dot) {
  constexpr QuantFormat f = kFormat;
  constexpr int kQuads = QuadsPerSum(f);
  __m256i sum[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const __m256i q = Broadcast(x.q + 4 * i);
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r) {
      const __m256i w = Weights<f>(p, i, r);
      const __m256i products =
          IsSigned(f) ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w))
                      : _mm256_maddubs_epi16(w, q);
      sum[r] = i % kQuads == 0 ? products : _mm256_add_epi16(sum[r], products);
      if (i % kQuads != kQuads - 1) continue;
      const __m256i scaled =
          _mm256_madd_epi16(sum[r], i < 4 && kQuads < 8 ? s.below[r] : s.above[r]);
      dot[r] = i == kQuads - 1 ? scaled : _mm256_add_epi32(dot[r], scaled);
    }
  }
  if constexpr (HasZero(f)) {
    // A half's scales times its sum.
    const __m256i sums = Broadcast(x.sum), zero = _mm256_set1_epi16(-f.zero);
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r) {
      const __m256i scale =
          HasPairs(f) ? _mm256_blend_epi16(s.below[r], s.above[r], 0xaa) : s.below[r];
      const __m256i minus = _mm256_madd_epi16(_mm256_mullo_epi16(scale, zero), sums);
      dot[r] = _mm256_add_epi32(dot[r], minus);
    }
  }
}

// The group of 16 rows from row on, times the column.
template <QuantFormat kFormat>
void Row(const MatmulArgs& a, size_t row) {
  constexpr QuantFormat f = kFormat;
  const size_t blocks = a.k / kQuantValues;
  const uint8_t* group = a.w + row / kRows * a.group_bytes;
  const GroupLayout at = LayoutOf(f, blocks);
  const QuantBlock* x = static_cast<const QuantBlock*>(a.x);
  __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (size_t first = 0; first < blocks; first += BlocksPerD(f)) {
    const uint8_t* d_at = group + at.d + first / BlocksPerD(f) * DBytes(f);
    const __m256 d[2] = {DOf<f>(d_at, 0), DOf<f>(d_at, 1)};
    __m256 m[2];
    if constexpr (HasM(f)) m[0] = HalfToFloat(d_at + 32), m[1] = HalfToFloat(d_at + 48);
    for (size_t b = first; b < first + BlocksPerD(f); ++b, ++x) {
      PrefetchAhead<f, kPrefetchBytes>(group, a.group_bytes, at, b, blocks);
      const BlockParts p = PartsOf<f>(group, at, b);
      const Scales s = ScalesOf<f>(p, b);
      __m256i dot[2];
      Dots<f>(p, *x, s, dot);
      const __m256 dx = _mm256_set1_ps(x->d);
      const __m256i sums = Broadcast(x->sum);
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r) {
        acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r]), _mm256_mul_ps(d[r], dx), acc[r]);
        if constexpr (HasM(f)) {
          const __m256 min = _mm256_cvtepi32_ps(_mm256_madd_epi16(s.min[r], sums));
          acc[r] = _mm256_fmadd_ps(min, _mm256_mul_ps(m[r], dx), acc[r]);
        }
      }
    }
  }
  StoreRows(a.y + row, a.rows - row, acc[0], acc[1]);
}

template <size_t kIndex>
void Matmul(const MatmulArgs& a) {
  if (a.columns > 1) return kPanelMatmuls.of[kIndex](a);
  for (size_t row = 0; row < a.rows; row += kRows) Row<kQuantFormats[kIndex]>(a, row);
}

template <size_t... kIndex>
constexpr QuantMatmuls AllMatmuls(std::index_sequence<kIndex...>) {
  return {{Matmul<kIndex>...}};
}

}  // namespace

constexpr QuantMatmuls kQuantMatmuls = AllMatmuls(std::make_index_sequence<kQuantFormatCount>());

}  // namespace efedllm::avx2
