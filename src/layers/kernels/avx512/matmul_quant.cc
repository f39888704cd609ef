// Block-format weights times int8 activations, with VNNI: vpdpbusd adds four products of unsigned
// weights and signed activations to an int32, exactly. One column, bound by memory, from here; more
// as panels (matmul_panel.cc).
#include <utility>

#include "layers/kernels/avx512/quant_weights.h"

namespace efedllm::avx512 {
namespace {

// The group of 16 rows from row on, times the column.
template <QuantFormat kFormat>
void Row(const MatmulArgs& a, size_t row) {
  constexpr QuantFormat f = kFormat;
  constexpr int kLast = HasPairs(f) ? 1 : 0;
  const size_t blocks = a.k / kQuantValues;
  const uint8_t* group = a.w + row / kRows * a.group_bytes;
  const GroupLayout at = LayoutOf(f, blocks);
  const QuantBlock* x = static_cast<const QuantBlock*>(a.x);
  __m512 acc = _mm512_setzero_ps();
  for (size_t first = 0; first < blocks; first += BlocksPerD(f)) {
    const uint8_t* d_at = group + at.d + first / BlocksPerD(f) * DBytes(f);
    const __m512 d = DOf<f>(d_at);
    const __m512 m = HasM(f) ? HalfToFloat(d_at + 32) : d;
    for (size_t b = first; b < first + BlocksPerD(f); ++b, ++x) {
      PrefetchAhead<f, kPrefetchBytes>(group, a.group_bytes, at, b, blocks);
      const BlockParts p = PartsOf<f>(group, at, b);
      __m512i dot[2] = {FirstSum<f>(*x, 0), FirstSum<f>(*x, 1)};
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        __m512i& sum = dot[i < 4 ? 0 : kLast];
        sum = _mm512_dpbusd_epi32(sum, Weights<f>(p, i), Broadcast(x->q + 4 * i));
      }
      acc = Join<f>(dot, ScalesOf<f>(p, b), d, m, *x, acc);
    }
  }
  StoreRows(a.y + row, a.rows - row, acc);
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

}  // namespace efedllm::avx512
