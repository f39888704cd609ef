// Block-format weights times int8 activations. vpmaddubsw adds two products of unsigned weights and
// signed activations to an int16, which saturates: as many of these are added as are sure to fit,
// and multiplied by the scale on the way to int32.
#include <utility>

#include "layers/kernels/avx2/avx2.h"
#include "layers/kernels/group_layout.h"

namespace efedllm::avx2 {
namespace {

constexpr size_t kRows = 16;

// What a kernel reads: eight of a group's 16 rows, and the columns.
struct Place {
  const uint8_t* group;
  GroupLayout at;
  int rows;  // 0: the first eight, 1: the others
  const QuantBlock* x;
  size_t stride;
};

// A plane's 64 bytes have 32 of each half of the rows.
__m256i LoadQuad(const Place& p, size_t offset) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(p.group + offset + p.rows * 32));
}
__m128i LoadPairs(const Place& p, const uint8_t* from) {
  return _mm_load_si128(reinterpret_cast<const __m128i*>(from + p.rows * 16));
}
__m256i LoadBytes(const Place& p, const uint8_t* from) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + p.rows * 8)));
}

// Four activations, or the block's two sums, in every lane.
__m256i Broadcast(const void* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm256_set1_epi32(four);
}

// The field of mask's width at the bit `from` of each byte, moved to where mask is, the bit `to`.
__m256i Field(__m256i v, int from, int to, __m256i mask) {
  const __m256i moved =
      from >= to ? _mm256_srli_epi16(v, from - to) : _mm256_slli_epi16(v, to - from);
  return _mm256_and_si256(moved, mask);
}

// Asks for what is read kPrefetchBytes of codes after block b, in this group or the next.
template <QuantFormat kFormat>
void Prefetch(const Place& p, size_t b, size_t blocks, size_t group_bytes) {
  const size_t ahead = b + kPrefetchBytes / CodeBytesPerBlock(kFormat);
  if (ahead < blocks) return PrefetchBlock<kFormat>(p.group, p.at, ahead);
  PrefetchBlock<kFormat>(p.group + group_bytes, p.at, ahead - blocks);
}

// Whether weights go in with their sign: those that reach ±127 would not fit a byte's zero point
// and an int16's sum.
constexpr bool IsSigned(const QuantFormat& f) { return f.zero == 128; }

// Quads of a block whose sums of two products an int16 holds.
constexpr int QuadsPerSum(const QuantFormat& f) {
  const int max = IsSigned(f)                     ? 128
                  : f.codebook == Codebook::kNone ? (1 << f.bits) - 1
                                                  : 12 + f.zero;
  int quads = HasPairs(f) ? 4 : 8;
  while (quads * 2 * 127 * max > 32767) quads /= 2;
  return quads;
}

// Weights 4g to 4g + 3 of half h of block b: plus the zero point, or signed.
template <QuantFormat kFormat>
__m256i Weights(const Place& p, size_t b, int g, int h) {
  constexpr QuantFormat f = kFormat;
  if constexpr (f.bits == 8) return LoadQuad(p, ((b * 2 + h) * 4 + g) * 64);
  __m256i code = _mm256_setzero_si256();
  if constexpr (HasNibbles(f)) {
    code = Field(LoadQuad(p, (b * 4 + g) * 64), 4 * h, 0, _mm256_set1_epi8(15));
  }
  if constexpr (HasTwoBits(f)) {
    constexpr int kTo = TwoBitsAt(f);
    const __m256i v = LoadQuad(p, p.at.pairs + (b * 2 + g / 2) * 64);
    code = _mm256_or_si256(code, Field(v, g % 2 * 4 + h * 2, kTo, _mm256_set1_epi8(3 << kTo)));
  }
  if constexpr (HasOneBit(f)) {
    constexpr int kTo = OneBitAt(f);
    const __m256i v = LoadQuad(p, p.at.bits + b * 64);
    code = _mm256_or_si256(code, Field(v, h * 4 + g, kTo, _mm256_set1_epi8(1 << kTo)));
  }
  if constexpr (f.codebook != Codebook::kNone) {
    const __m128i book = _mm_loadu_si128(reinterpret_cast<const __m128i*>(CodebookValues(f)));
    const __m128i values = IsSigned(f) ? book : _mm_add_epi8(book, _mm_set1_epi8(f.zero));
    code = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), code);
  }
  return code;
}

// Of eight rows, as pairs of int16: a block's scales and mins below and above.
struct Scales {
  __m256i scale;
  __m256i min;
};

template <QuantFormat kFormat>
Scales ScalesOf(const Place& p, size_t b) {
  const uint8_t* scales = p.group + p.at.scales;
  const uint8_t* upper = p.group + p.at.upper_scales;
  const __m256i nibble = _mm256_set1_epi32(15), two = _mm256_set1_epi32(0x30);
  const __m256i bias = _mm256_set1_epi16(32), zero = _mm256_setzero_si256();
  const auto twice = [](__m256i v) { return _mm256_or_si256(v, _mm256_slli_epi32(v, 16)); };
  if constexpr (kFormat.scales == SubScales::kInt8Pairs) {
    return {_mm256_cvtepi8_epi16(LoadPairs(p, scales + b * 32)), zero};
  }
  if constexpr (kFormat.scales == SubScales::kFourBitsMins) {
    const __m256i v = _mm256_cvtepu8_epi16(LoadPairs(p, scales + b * 32));
    return {_mm256_and_si256(v, _mm256_set1_epi16(15)),
            _mm256_sub_epi16(zero, _mm256_srli_epi16(v, 4))};
  }
  if constexpr (kFormat.scales == SubScales::kSixBits) {
    const int shift = static_cast<int>(b % 4);
    const __m256i low = _mm256_srli_epi32(LoadBytes(p, scales + b / 2 * 16), shift % 2 * 4);
    const __m256i high =
        _mm256_srli_epi32(_mm256_slli_epi32(LoadBytes(p, upper + b / 4 * 16), 4), shift * 2);
    const __m256i v = _mm256_or_si256(_mm256_and_si256(low, nibble), _mm256_and_si256(high, two));
    return {_mm256_sub_epi16(twice(v), bias), zero};
  }
  if constexpr (kFormat.scales == SubScales::kSixBitPairs ||
                kFormat.scales == SubScales::kSixBitsMins) {
    const __m256i low = LoadBytes(p, scales + b * 16);
    const __m256i high =
        _mm256_srli_epi32(LoadBytes(p, upper + b / 2 * 16), static_cast<int>(b % 2 * 4));
    const __m256i first = _mm256_or_si256(_mm256_and_si256(low, nibble),
                                          _mm256_and_si256(_mm256_slli_epi32(high, 4), two));
    const __m256i second = _mm256_or_si256(_mm256_srli_epi32(low, 4),
                                           _mm256_and_si256(_mm256_slli_epi32(high, 2), two));
    if constexpr (kFormat.scales == SubScales::kSixBitPairs) {
      const __m256i both = _mm256_or_si256(first, _mm256_slli_epi32(second, 16));
      return {_mm256_sub_epi16(both, bias), zero};
    }
    return {twice(first), _mm256_sub_epi16(zero, twice(second))};
  }
  return {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
}

// dot: the exact products of block b with kColumns columns, times the scales.
template <QuantFormat kFormat, int kColumns>
inline void Dots(const Place& p, size_t b, __m256i scale, __m256i* dot) {
  constexpr QuantFormat f = kFormat;
  constexpr int kQuads = QuadsPerSum(f);
  // A half's scale, twice.
  __m256i of_half[2] = {scale, scale};
  if constexpr (HasPairs(f)) {
    of_half[0] = _mm256_blend_epi16(scale, _mm256_slli_epi32(scale, 16), 0xaa);
    of_half[1] = _mm256_blend_epi16(scale, _mm256_srli_epi32(scale, 16), 0x55);
  }
  // The zero point's part.
  const __m256i zero = _mm256_mullo_epi16(scale, _mm256_set1_epi16(-f.zero));
  for (int c = 0; c < kColumns; ++c) {
    dot[c] = f.zero == 0 || IsSigned(f)
                 ? _mm256_setzero_si256()
                 : _mm256_madd_epi16(zero, Broadcast(p.x[c * p.stride + b].sum));
  }
  __m256i sum[kColumns];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const __m256i w = Weights<f>(p, b, i % 4, i / 4);
    const __m256i magnitude = IsSigned(f) ? _mm256_abs_epi8(w) : w;
    for (int c = 0; c < kColumns; ++c) {
      __m256i x = Broadcast(p.x[c * p.stride + b].q + 4 * i);
      if (IsSigned(f)) x = _mm256_sign_epi8(x, w);
      const __m256i products = _mm256_maddubs_epi16(magnitude, x);
      sum[c] = i % kQuads == 0 ? products : _mm256_add_epi16(sum[c], products);
      if (i % kQuads == kQuads - 1) {
        dot[c] = _mm256_add_epi32(dot[c], _mm256_madd_epi16(sum[c], of_half[i / 4]));
      }
    }
  }
}

__m256 HalfToFloat(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}

template <QuantFormat kFormat>
__m256 DOf(const Place& p, const uint8_t* d) {
  if constexpr (!HasE8m0(kFormat)) return HalfToFloat(d + p.rows * 16);
  const __m256i e = LoadBytes(p, d), one = _mm256_set1_epi32(1);
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
  const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(subnormal, normal, _mm256_cmpgt_epi32(e, one)));
}

// acc += block b, in the order of docs/numerics.md.
template <QuantFormat kFormat, int kColumns>
inline void AddBlock(const Place& p, size_t b, __m256* acc) {
  const Scales scales = ScalesOf<kFormat>(p, b);
  __m256i dot[kColumns];
  Dots<kFormat, kColumns>(p, b, scales.scale, dot);
  const uint8_t* d_at = p.group + p.at.d + b / BlocksPerD(kFormat) * DBytes(kFormat);
  const __m256 d = DOf<kFormat>(p, d_at);
  for (int c = 0; c < kColumns; ++c) {
    const QuantBlock& x = p.x[c * p.stride + b];
    const __m256 dx = _mm256_set1_ps(x.d);
    acc[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[c]), _mm256_mul_ps(d, dx), acc[c]);
    if constexpr (HasM(kFormat)) {
      const __m256 m = HalfToFloat(d_at + 32 + p.rows * 16);
      const __m256 min = _mm256_cvtepi32_ps(_mm256_madd_epi16(scales.min, Broadcast(x.sum)));
      acc[c] = _mm256_fmadd_ps(min, _mm256_mul_ps(m, dx), acc[c]);
    }
  }
}

// The group of 16 rows from row on, times kColumns columns from column on.
template <QuantFormat kFormat, int kColumns>
void Tile(const MatmulArgs& a, size_t row, size_t column) {
  const size_t blocks = a.k / kQuantValues;
  Place p = {a.w + row / kRows * a.group_bytes, LayoutOf(kFormat, blocks), 0,
             static_cast<const QuantBlock*>(a.x) + column * a.x_stride, a.x_stride};
  __m256 acc[2][kColumns];
  for (auto& half : acc) {
    for (__m256& v : half) v = _mm256_setzero_ps();
  }
  for (size_t b = 0; b < blocks; ++b) {
    if (column == 0) Prefetch<kFormat>(p, b, blocks, a.group_bytes);
    for (p.rows = 0; p.rows < 2; ++p.rows) AddBlock<kFormat, kColumns>(p, b, acc[p.rows]);
  }
  const size_t rows = a.rows - row < kRows ? a.rows - row : kRows;
  for (int c = 0; c < kColumns; ++c) {
    alignas(32) float all[kRows];
    _mm256_store_ps(all, acc[0][c]);
    _mm256_store_ps(all + 8, acc[1][c]);
    __builtin_memcpy(a.y + (column + c) * a.y_stride + row, all, rows * sizeof(float));
  }
}

template <QuantFormat kFormat>
void Matmul(const MatmulArgs& a) {
  for (size_t row = 0; row < a.rows; row += kRows) {
    size_t c = 0;
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

}  // namespace efedllm::avx2
