// Block-format weights times int8 activations, with VNNI: vpdpbusd adds four products of unsigned
// weights and signed activations to an int32, exactly. What makes the weights unsigned (their zero
// point times the sum of the activations) is where the sum begins.
#include <utility>

#include "layers/kernels/avx512/avx512.h"
#include "layers/kernels/group_layout.h"

namespace efedllm::avx512 {
namespace {

constexpr size_t kRows = 16;

// What a kernel reads in a group, and which rows and columns it computes.
struct Place {
  const uint8_t* group;
  GroupLayout at;
  const QuantBlock* x;
  size_t stride;
};

__m512i Load(const uint8_t* p) { return _mm512_load_si512(p); }
__m256i LoadHalf(const uint8_t* p) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
}
__m512i LoadBytes(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}

// Four activations, or the block's two sums, in every lane.
__m512i Broadcast(const void* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm512_set1_epi32(four);
}

// The bits of mask << from, in each of the lanes that mask tells of, moved to the bit `to`.
__m512i Field(__m512i v, int from, int to, __m512i mask) {
  const __m512i moved =
      from >= to ? _mm512_srli_epi16(v, from - to) : _mm512_slli_epi16(v, to - from);
  return _mm512_and_si512(moved, mask);
}

// Asks for what is read kPrefetchBytes of codes after block b, in this group or the next.
template <QuantFormat kFormat>
void Prefetch(const Place& p, size_t b, size_t blocks, size_t group_bytes) {
  const size_t ahead = b + kPrefetchBytes / CodeBytesPerBlock(kFormat);
  if (ahead < blocks) return PrefetchBlock<kFormat>(p.group, p.at, ahead);
  PrefetchBlock<kFormat>(p.group + group_bytes, p.at, ahead - blocks);
}

// Weights 4g to 4g + 3 of half h of block b, unsigned.
template <QuantFormat kFormat>
__m512i Weights(const Place& p, size_t b, int g, int h) {
  constexpr QuantFormat f = kFormat;
  if constexpr (f.bits == 8) {
    const uint8_t* quad = p.group + ((b * 2 + h) * 4 + g) * 64;
    return _mm512_xor_si512(Load(quad), _mm512_set1_epi8(-128));
  }
  __m512i code = _mm512_setzero_si512();
  if constexpr (HasNibbles(f)) {
    const __m512i v = Load(p.group + (b * 4 + g) * 64);
    code = Field(v, 4 * h, 0, _mm512_set1_epi8(15));
  }
  if constexpr (HasTwoBits(f)) {
    const __m512i v = Load(p.group + p.at.pairs + (b * 2 + g / 2) * 64);
    constexpr int kTo = TwoBitsAt(f);
    code = _mm512_or_si512(code, Field(v, g % 2 * 4 + h * 2, kTo, _mm512_set1_epi8(3 << kTo)));
  }
  if constexpr (HasOneBit(f)) {
    const __m512i v = Load(p.group + p.at.bits + b * 64);
    constexpr int kTo = OneBitAt(f);
    code = _mm512_or_si512(code, Field(v, h * 4 + g, kTo, _mm512_set1_epi8(1 << kTo)));
  }
  if constexpr (f.codebook != Codebook::kNone) {
    const __m128i book = _mm_loadu_si128(reinterpret_cast<const __m128i*>(CodebookValues(f)));
    const __m512i values =
        _mm512_broadcast_i32x4(_mm_add_epi8(book, _mm_set1_epi8(static_cast<char>(f.zero))));
    code = _mm512_shuffle_epi8(values, code);
  }
  return code;
}

// Minus the zero point times the sum of the activations: of half h, or of all where one scale
// serves the block.
template <QuantFormat kFormat>
__m512i FirstSum(const QuantBlock& x, int h) {
  constexpr int kZero = kFormat.zero;
  if constexpr (kZero == 0) return _mm512_setzero_si512();
  if constexpr (kZero == 128) return _mm512_set1_epi32(x.offset);
  const int32_t pair = HasPairs(kFormat) ? (h == 0 ? -kZero & 0xffff : -kZero * 65536)
                                         : (-kZero & 0xffff) | -kZero * 65536;
  return _mm512_madd_epi16(_mm512_set1_epi32(pair), Broadcast(x.sum));
}

// The exact sums of block b for kColumns columns; the two halves apart where they have scales of
// their own.
template <QuantFormat kFormat, int kColumns>
inline void Dots(const Place& p, size_t b, __m512i dot[][kColumns]) {
  constexpr int kLast = HasPairs(kFormat) ? 1 : 0;
  for (int c = 0; c < kColumns; ++c) {
    const QuantBlock& x = p.x[c * p.stride + b];
    dot[0][c] = FirstSum<kFormat>(x, 0);
    if (kLast == 1) dot[1][c] = FirstSum<kFormat>(x, 1);
  }
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    const __m512i below = Weights<kFormat>(p, b, g, 0), above = Weights<kFormat>(p, b, g, 1);
    for (int c = 0; c < kColumns; ++c) {
      const int8_t* q = p.x[c * p.stride + b].q + 4 * g;
      dot[0][c] = _mm512_dpbusd_epi32(dot[0][c], below, Broadcast(q));
      dot[kLast][c] = _mm512_dpbusd_epi32(dot[kLast][c], above, Broadcast(q + 16));
    }
  }
}

// Of 16 rows, as pairs of int16: a block's scales and mins below and above.
struct Scales {
  __m512i scale;
  __m512i min;
};

template <QuantFormat kFormat>
Scales ScalesOf(const Place& p, size_t b) {
  const uint8_t* scales = p.group + p.at.scales;
  const uint8_t* upper = p.group + p.at.upper_scales;
  const __m512i nibble = _mm512_set1_epi32(15), two = _mm512_set1_epi32(0x30);
  const __m512i bias = _mm512_set1_epi16(32), zero = _mm512_setzero_si512();
  const auto twice = [](__m512i v) { return _mm512_or_si512(v, _mm512_slli_epi32(v, 16)); };
  if constexpr (kFormat.scales == SubScales::kInt8Pairs) {
    return {_mm512_cvtepi8_epi16(LoadHalf(scales + b * 32)), zero};
  }
  if constexpr (kFormat.scales == SubScales::kFourBitsMins) {
    const __m512i v = _mm512_cvtepu8_epi16(LoadHalf(scales + b * 32));
    return {_mm512_and_si512(v, _mm512_set1_epi16(15)),
            _mm512_sub_epi16(zero, _mm512_srli_epi16(v, 4))};
  }
  if constexpr (kFormat.scales == SubScales::kSixBits) {
    const __m512i low = _mm512_srli_epi32(LoadBytes(scales + b / 2 * 16), b % 2 * 4);
    const __m512i high =
        _mm512_srli_epi32(_mm512_slli_epi32(LoadBytes(upper + b / 4 * 16), 4), b % 4 * 2);
    const __m512i v = _mm512_or_si512(_mm512_and_si512(low, nibble), _mm512_and_si512(high, two));
    return {_mm512_sub_epi16(twice(v), bias), zero};
  }
  if constexpr (kFormat.scales == SubScales::kSixBitPairs ||
                kFormat.scales == SubScales::kSixBitsMins) {
    const __m512i low = LoadBytes(scales + b * 16);
    const __m512i high = _mm512_srli_epi32(LoadBytes(upper + b / 2 * 16), b % 2 * 4);
    const __m512i first = _mm512_or_si512(_mm512_and_si512(low, nibble),
                                          _mm512_and_si512(_mm512_slli_epi32(high, 4), two));
    const __m512i second = _mm512_or_si512(_mm512_srli_epi32(low, 4),
                                           _mm512_and_si512(_mm512_slli_epi32(high, 2), two));
    if constexpr (kFormat.scales == SubScales::kSixBitPairs) {
      const __m512i both = _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
      return {_mm512_sub_epi16(both, bias), zero};
    }
    return {twice(first), _mm512_sub_epi16(zero, twice(second))};
  }
  return {zero, _mm512_set1_epi16(1)};
}

template <QuantFormat kFormat>
__m512 DOf(const uint8_t* d) {
  if constexpr (!HasE8m0(kFormat)) return _mm512_cvtph_ps(LoadHalf(d));
  const __m512i e = LoadBytes(d), one = _mm512_set1_epi32(1);
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, one), 23);
  const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
  return _mm512_castsi512_ps(
      _mm512_mask_blend_epi32(_mm512_cmple_epi32_mask(e, one), normal, subnormal));
}

// acc += block b, in the order of docs/numerics.md. A sum times its scale is below 2^24, so that
// floats hold it exactly. A zero's sign doesn't matter: acc is never -0.
template <QuantFormat kFormat, int kColumns>
inline void Join(const Place& p, size_t b, const __m512i dot[][kColumns], __m512* acc) {
  const uint8_t* d_at = p.group + p.at.d + b / BlocksPerD(kFormat) * DBytes(kFormat);
  const __m512 d = DOf<kFormat>(d_at);
  const Scales scales = ScalesOf<kFormat>(p, b);
  const __m512 below =
      _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(scales.scale, 16), 16));
  const __m512 above = _mm512_cvtepi32_ps(_mm512_srai_epi32(scales.scale, 16));
  for (int c = 0; c < kColumns; ++c) {
    const QuantBlock& x = p.x[c * p.stride + b];
    const __m512 dx = _mm512_set1_ps(x.d);
    __m512 sum = _mm512_cvtepi32_ps(dot[0][c]);
    if constexpr (kFormat.scales != SubScales::kNone) sum = _mm512_mul_ps(sum, below);
    if constexpr (HasPairs(kFormat)) {
      sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[1][c]), above, sum);
    }
    acc[c] = _mm512_fmadd_ps(sum, _mm512_mul_ps(d, dx), acc[c]);
    if constexpr (HasM(kFormat)) {
      const __m512 m = _mm512_cvtph_ps(LoadHalf(d_at + 32));
      const __m512 min = _mm512_cvtepi32_ps(_mm512_madd_epi16(scales.min, Broadcast(x.sum)));
      acc[c] = _mm512_fmadd_ps(min, _mm512_mul_ps(m, dx), acc[c]);
    }
  }
}

// The group of 16 rows from row on, times kColumns columns from column on.
template <QuantFormat kFormat, int kColumns>
void Tile(const MatmulArgs& a, size_t row, size_t column) {
  const size_t blocks = a.k / kQuantValues;
  const Place p = {a.w + row / kRows * a.group_bytes, LayoutOf(kFormat, blocks),
                   static_cast<const QuantBlock*>(a.x) + column * a.x_stride, a.x_stride};
  __m512 acc[kColumns];
  for (__m512& v : acc) v = _mm512_setzero_ps();
  for (size_t b = 0; b < blocks; ++b) {
    if (column == 0) Prefetch<kFormat>(p, b, blocks, a.group_bytes);
    __m512i dot[2][kColumns];
    Dots<kFormat, kColumns>(p, b, dot);
    Join<kFormat, kColumns>(p, b, dot, acc);
  }
  for (int c = 0; c < kColumns; ++c) {
    StoreRows(a.y + (column + c) * a.y_stride + row, a.rows - row, acc[c]);
  }
}

template <QuantFormat kFormat>
void Matmul(const MatmulArgs& a) {
  // Two sums a column: more would not fit the registers.
  constexpr int kTileColumns = HasPairs(kFormat) ? 4 : 8;
  for (size_t row = 0; row < a.rows; row += kRows) {
    size_t c = 0;
    for (; c + kTileColumns <= a.columns; c += kTileColumns) {
      Tile<kFormat, kTileColumns>(a, row, c);
    }
    for (; c + 4 <= a.columns; c += 4) Tile<kFormat, 4>(a, row, c);
    if (a.columns - c == 3) Tile<kFormat, 3>(a, row, c);
    if (a.columns - c == 2) Tile<kFormat, 2>(a, row, c);
    if (a.columns - c == 1) Tile<kFormat, 1>(a, row, c);
  }
}

template <size_t... kIndex>
constexpr QuantMatmuls AllMatmuls(std::index_sequence<kIndex...>) {
  return {{Matmul<kQuantFormats[kIndex]>...}};
}

}  // namespace

constexpr QuantMatmuls kQuantMatmuls = AllMatmuls(std::make_index_sequence<kQuantFormatCount>());

}  // namespace efedllm::avx512
