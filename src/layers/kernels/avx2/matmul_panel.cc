// Block-format weights times many columns of int8 activations. A slab of a group's weights is taken
// apart once, into what the inner loop wants, and multiplied by a panel of columns from the
// first-level cache.
#include <utility>

#include "layers/kernels/avx2/quant_weights.h"

namespace efedllm::avx2 {
namespace {

constexpr size_t kSlabBlocks = 8;
constexpr size_t kPanelColumns = 64;

// Of 16 rows; halves of eight rows are [2].
struct alignas(64) Slab {
  __m256i w[kSlabBlocks][8][2];      // bytes: weights 4i to 4i + 3
  __m256i scale[kSlabBlocks][2][2];  // int16, twice: of the values below, and of those above
  __m256i zero[kSlabBlocks][2];      // int16 pairs: minus the zero point times scale
  __m256i min[kSlabBlocks][2];       // int16 pairs
  __m256 d[kSlabBlocks][2];
  __m256 m[kSlabBlocks][2];
};

template <QuantFormat kFormat>
void UnpackBlock(const BlockParts& p, size_t b, size_t at, Slab* slab) {
  constexpr QuantFormat f = kFormat;
  const Scales s = ScalesOf<f>(p, b);
#pragma GCC unroll 2
  for (int r = 0; r < 2; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) slab->w[at][i][r] = Weights<f>(p, i, r);
    slab->scale[at][0][r] = s.below[r];
    slab->scale[at][1][r] = s.above[r];
    if constexpr (HasZero(f)) {
      const __m256i scale = _mm256_blend_epi16(s.below[r], s.above[r], 0xaa);
      slab->zero[at][r] = _mm256_mullo_epi16(scale, _mm256_set1_epi16(-f.zero));
    }
    slab->d[at][r] = DOf<f>(p.d, r);
    if constexpr (HasM(f)) {
      slab->min[at][r] = s.min[r];
      slab->m[at][r] = HalfToFloat(p.d + 32 + r * 16);
    }
  }
}

// dot (+)= the products of quads i, i + 1, … as many as an int16 holds, times their scale.
template <QuantFormat kFormat, int kColumns>
[[gnu::always_inline]] inline void AddQuads(const Slab& slab, size_t b, int i,
                                            const QuantBlock* const* x, __m256i dot[][2]) {
  constexpr int kQuads = QuadsPerSum(kFormat);
  const auto products = [&](int j, int r, __m256i q) {
    const __m256i w = slab.w[b][i + j][r];
    if (!IsSigned(kFormat)) return _mm256_maddubs_epi16(w, q);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
  };
  const auto add = [&](int c, int r, __m256i sum) {
    const __m256i scaled = _mm256_madd_epi16(sum, slab.scale[b][i / 4][r]);
    dot[c][r] = i == 0 ? scaled : _mm256_add_epi32(dot[c][r], scaled);
  };
  if constexpr (kQuads <= 2) {
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      const __m256i q = Broadcast(x[c]->q + 4 * i);
      const __m256i next = Broadcast(x[c]->q + 4 * (i + kQuads - 1));
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r) {
        const __m256i sum = products(0, r, q);
        add(c, r, kQuads == 1 ? sum : _mm256_add_epi16(sum, products(1, r, next)));
      }
    }
    return;
  }
  __m256i sum[kColumns][2];
#pragma GCC unroll 8
  for (int j = 0; j < kQuads; ++j) {
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      const __m256i q = Broadcast(x[c]->q + 4 * (i + j));
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r) {
        const __m256i p = products(j, r, q);
        sum[c][r] = j == 0 ? p : _mm256_add_epi16(sum[c][r], p);
        asm("" : "+x"(sum[c][r]));  // another order of the additions would spill registers
      }
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) {
    add(c, 0, sum[c][0]);
    add(c, 1, sum[c][1]);
  }
}

// acc + block b of the slab for one column, in the order of docs/numerics.md.
template <QuantFormat kFormat>
[[gnu::always_inline]] inline void Join(const Slab& slab, size_t b, const QuantBlock& x,
                                        const __m256i* dot, __m256* acc) {
  const __m256i sums = Broadcast(x.sum);
  const __m256 dx = _mm256_set1_ps(x.d);
#pragma GCC unroll 2
  for (int r = 0; r < 2; ++r) {
    __m256i all = dot[r];
    if constexpr (HasZero(kFormat)) {
      all = _mm256_add_epi32(all, _mm256_madd_epi16(slab.zero[b][r], sums));
    }
    __m256 v = acc[r];
    v = _mm256_fmadd_ps(_mm256_cvtepi32_ps(all), _mm256_mul_ps(slab.d[b][r], dx), v);
    if constexpr (HasM(kFormat)) {
      const __m256 min = _mm256_cvtepi32_ps(_mm256_madd_epi16(slab.min[b][r], sums));
      v = _mm256_fmadd_ps(min, _mm256_mul_ps(slab.m[b][r], dx), v);
    }
    acc[r] = v;
  }
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
                            __m256 acc[][2]) {
  const QuantBlock* column[kColumns];
  for (int c = 0; c < kColumns; ++c) column[c] = x + c * stride;
  for (size_t b = 0; b < from.count; ++b) {
    if constexpr (kFirst) {
      const size_t block = from.first + b;
      PrefetchAhead<kFormat, kPrefetchBytes>(from.group, from.group_bytes, from.at, block,
                                             from.blocks);
      UnpackBlock<kFormat>(PartsOf<kFormat>(from.group, from.at, block), block, b, slab);
    }
    // One pointer a column, not one for each of its quads.
    for (int c = 0; c < kColumns; ++c) asm("" : "+r"(column[c]));
    __m256i dot[kColumns][2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += QuadsPerSum(kFormat)) {
      AddQuads<kFormat, kColumns>(*slab, b, i, column, dot);
    }
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) Join<kFormat>(*slab, b, *column[c]++, dot[c], acc[c]);
  }
}

template <QuantFormat kFormat, int kColumns>
void Tile(const Source& from, Slab* slab, const QuantBlock* x, size_t stride, size_t* c,
          __m256 acc[][2]) {
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
  __m256 acc[kPanelColumns][2];
  for (size_t c = 0; c < columns; ++c) acc[c][0] = acc[c][1] = _mm256_setzero_ps();
  for (; from.first < blocks; from.first += kSlabBlocks, x += kSlabBlocks) {
    if (blocks - from.first < kSlabBlocks) from.count = blocks - from.first;
    size_t c = 0;
    while (columns - c >= 4) Tile<kFormat, 4>(from, &slab, x, a.x_stride, &c, acc);
    if (columns - c >= 2) Tile<kFormat, 2>(from, &slab, x, a.x_stride, &c, acc);
    if (columns - c >= 1) Tile<kFormat, 1>(from, &slab, x, a.x_stride, &c, acc);
  }
  for (size_t c = 0; c < columns; ++c) {
    StoreRows(a.y + (column + c) * a.y_stride + row, a.rows - row, acc[c][0], acc[c][1]);
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

}  // namespace efedllm::avx2
