// Block-format weights times many columns of int8 activations. A slab of a group's weights is taken
// apart once, into what the inner loop wants, and multiplied by a panel of columns from the
// first-level cache.
#include <utility>

#include "layers/kernels/avx512/quant_weights.h"

namespace efedllm::avx512 {
namespace {

constexpr size_t kSlabBlocks = 8;
constexpr size_t kPanelColumns = 64;

struct alignas(64) Slab {
  __m512i w[kSlabBlocks][8];  // bytes: weights 4i to 4i + 3
  Scales scales[kSlabBlocks];
  __m512 d[kSlabBlocks];
  __m512 m[kSlabBlocks];
};

template <QuantFormat kFormat>
void UnpackBlock(const BlockParts& p, size_t b, size_t at, Slab* slab) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) slab->w[at][i] = Weights<kFormat>(p, i);
  slab->scales[at] = ScalesOf<kFormat>(p, b);
  slab->d[at] = DOf<kFormat>(p.d);
  if constexpr (HasM(kFormat)) slab->m[at] = HalfToFloat(p.d + 32);
}

// A slab of a group: blocks [first, first + count).
struct Source {
  const uint8_t* group;
  size_t group_bytes;
  GroupLayout at;
  size_t blocks;  // of the whole group
  size_t first;
  size_t count;
};

// acc += the slab's blocks times kColumns columns. The first tile takes the weights apart as it
// goes, so that their way from memory hides behind products; the others find them in the slab.
template <QuantFormat kFormat, int kColumns, bool kFirst>
[[gnu::noinline]] void Tile(const Source& from, Slab* slab, const QuantBlock* x, size_t stride,
                            __m512* acc) {
  constexpr int kLast = HasPairs(kFormat) ? 1 : 0;
  __m512 sums[kColumns];
  const QuantBlock* column[kColumns];
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) {
    sums[c] = acc[c];
    column[c] = x + c * stride;
  }
  for (size_t b = 0; b < from.count; ++b) {
    if constexpr (kFirst) {
      const size_t block = from.first + b;
      PrefetchAhead<kFormat, kPrefetchBytes>(from.group, from.group_bytes, from.at, block,
                                             from.blocks);
      UnpackBlock<kFormat>(PartsOf<kFormat>(from.group, from.at, block), block, b, slab);
    }
    __m512i dot[kColumns][2];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      asm("" : "+r"(column[c]));  // one pointer a column, not one for each of its quads
      dot[c][0] = FirstSum<kFormat>(*column[c], 0);
      if (kLast == 1) dot[c][1] = FirstSum<kFormat>(*column[c], 1);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m512i w = slab->w[b][i];
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        __m512i& dots = dot[c][i < 4 ? 0 : kLast];
        dots = _mm512_dpbusd_epi32(dots, w, Broadcast(column[c]->q + 4 * i));
      }
    }
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      sums[c] = Join<kFormat>(dot[c], slab->scales[b], slab->d[b], slab->m[b], *column[c], sums[c]);
      ++column[c];
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) acc[c] = sums[c];
}

template <QuantFormat kFormat, int kColumns>
void Tile(const Source& from, Slab* slab, const QuantBlock* x, size_t stride, size_t* c,
          __m512* acc) {
  const auto tile = *c == 0 ? Tile<kFormat, kColumns, true> : Tile<kFormat, kColumns, false>;
  tile(from, slab, x + *c * stride, stride, acc + *c);
  *c += kColumns;
}

// The group of 16 rows from row on, times columns from column on.
template <QuantFormat kFormat>
void Panel(const MatmulArgs& a, size_t row, size_t column, size_t columns) {
  const size_t blocks = a.k / kQuantValues;
  Source from = {a.w + row / kRows * a.group_bytes,
                 a.group_bytes,
                 LayoutOf(kFormat, blocks),
                 blocks,
                 0,
                 kSlabBlocks};
  const QuantBlock* x = static_cast<const QuantBlock*>(a.x) + column * a.x_stride;
  Slab slab;
  __m512 acc[kPanelColumns];
  for (size_t c = 0; c < columns; ++c) acc[c] = _mm512_setzero_ps();
  for (; from.first < blocks; from.first += kSlabBlocks, x += kSlabBlocks) {
    if (blocks - from.first < kSlabBlocks) from.count = blocks - from.first;
    size_t c = 0;
    while (columns - c >= 8) Tile<kFormat, 8>(from, &slab, x, a.x_stride, &c, acc);
    if (columns - c >= 4) Tile<kFormat, 4>(from, &slab, x, a.x_stride, &c, acc);
    if (columns - c >= 2) Tile<kFormat, 2>(from, &slab, x, a.x_stride, &c, acc);
    if (columns - c >= 1) Tile<kFormat, 1>(from, &slab, x, a.x_stride, &c, acc);
  }
  for (size_t c = 0; c < columns; ++c) {
    StoreRows(a.y + (column + c) * a.y_stride + row, a.rows - row, acc[c]);
  }
}

template <QuantFormat kFormat>
void Matmul(const MatmulArgs& a) {
  for (size_t row = 0; row < a.rows; row += kRows) {
    for (size_t c = 0; c < a.columns; c += kPanelColumns) {
      Panel<kFormat>(a, row, c, a.columns - c < kPanelColumns ? a.columns - c : kPanelColumns);
    }
  }
}

template <size_t... kIndex>
constexpr QuantMatmuls AllMatmuls(std::index_sequence<kIndex...>) {
  return {{Matmul<kQuantFormats[kIndex]>...}};
}

}  // namespace

constexpr QuantMatmuls kPanelMatmuls = AllMatmuls(std::make_index_sequence<kQuantFormatCount>());

}  // namespace efedllm::avx512
