// How the AVX-512 kernels read a block of packed block-format weights (layers/packed_matrix.h): of
// 16 rows, one in each lane.
#ifndef EFEDLLM_LAYERS_KERNELS_AVX512_QUANT_WEIGHTS_H_
#define EFEDLLM_LAYERS_KERNELS_AVX512_QUANT_WEIGHTS_H_

#include "layers/kernels/avx512/avx512.h"
#include "layers/kernels/group_layout.h"

namespace efedllm::avx512 {

static constexpr size_t kRows = 16;

static inline __m128i Load128(const uint8_t* p) {
  return _mm_load_si128(reinterpret_cast<const __m128i*>(p));
}
static inline __m256i Load256(const uint8_t* p) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
}
static inline __m512i Load512(const uint8_t* p) { return _mm512_load_si512(p); }

// Four activations, or the block's two sums, in every lane.
static inline __m512i Broadcast(const void* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm512_set1_epi32(four);
}

// The field of mask's width at the bit `from` of each byte, moved to where mask is, the bit `to`.
static inline __m512i Field(__m512i v, int from, int to, __m512i mask) {
  const __m512i moved =
      from >= to ? _mm512_srli_epi16(v, from - to) : _mm512_slli_epi16(v, to - from);
  return _mm512_and_si512(moved, mask);
}

// Weights 4i to 4i + 3, plus the zero point.
template <QuantFormat kFormat>
inline __m512i Weights(const BlockParts& p, int i) {
  constexpr QuantFormat f = kFormat;
  const int g = i % 4, above = i / 4;
  if constexpr (f.bits == 8) {
    return _mm512_xor_si512(Load512(p.codes + i * 64), _mm512_set1_epi8(-128));
  }
  __m512i code = _mm512_setzero_si512();
  if constexpr (HasNibbles(f)) {
    code = Field(Load512(p.codes + g * 64), 4 * above, 0, _mm512_set1_epi8(15));
  }
  if constexpr (HasTwoBits(f)) {
    constexpr int kTo = TwoBitsAt(f);
    const __m512i v = Load512(p.pairs + g / 2 * 64);
    code = _mm512_or_si512(code, Field(v, g % 2 * 4 + above * 2, kTo, _mm512_set1_epi8(3 << kTo)));
  }
  if constexpr (HasOneBit(f)) {
    constexpr int kTo = OneBitAt(f);
    const __m512i v = Load512(p.bits);
    code = _mm512_or_si512(code, Field(v, above * 4 + g, kTo, _mm512_set1_epi8(1 << kTo)));
  }
  if constexpr (f.codebook != Codebook::kNone) {
    const __m128i book = _mm_loadu_si128(reinterpret_cast<const __m128i*>(CodebookValues(f)));
    const __m512i values =
        _mm512_broadcast_i32x4(_mm_add_epi8(book, _mm_set1_epi8(static_cast<char>(f.zero))));
    code = _mm512_shuffle_epi8(values, code);
  }
  return code;
}

// Where an exact sum of products begins, to have the weights' zero point taken out: minus the zero
// point times the sum of the activations, of half h, or of all where one scale serves the block.
template <QuantFormat kFormat>
inline __m512i FirstSum(const QuantBlock& x, int h) {
  constexpr int kZero = kFormat.zero;
  if constexpr (kZero == 0) return _mm512_setzero_si512();
  if constexpr (kZero == 128) return _mm512_set1_epi32(x.offset);
  const int32_t pair = HasPairs(kFormat) ? (h == 0 ? -kZero & 0xffff : -kZero * 65536)
                                         : (-kZero & 0xffff) | -kZero * 65536;
  return _mm512_madd_epi16(_mm512_set1_epi32(pair), Broadcast(x.sum));
}

struct Scales {
  __m512 below;  // of a block's values 0 to 15
  __m512 above;  // of those from 16 on
  __m512i min;   // of both, as pairs of int16
};

// The low four bits of each byte, and two bits of `upper` above them.
static inline __m128i SixBits(__m128i low, __m128i upper) {
  return _mm_or_si128(_mm_and_si128(low, _mm_set1_epi8(15)),
                      _mm_slli_epi16(_mm_and_si128(upper, _mm_set1_epi8(3)), 4));
}

static inline __m512 BytesToFloat(__m128i v) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v)); }

// v: pairs of int16, of the values below and above.
static inline void SplitPairs(__m512i v, Scales* s) {
  s->below = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, 16), 16));
  s->above = _mm512_cvtepi32_ps(_mm512_srai_epi32(v, 16));
}

template <QuantFormat kFormat>
inline Scales ScalesOf(const BlockParts& p, size_t b) {
  Scales s{.min = _mm512_set1_epi16(1)};
  if constexpr (kFormat.scales == SubScales::kInt8Pairs) {
    SplitPairs(_mm512_cvtepi8_epi16(Load256(p.scales)), &s);
  }
  if constexpr (kFormat.scales == SubScales::kFourBitsMins) {
    const __m512i v = _mm512_cvtepu8_epi16(Load256(p.scales));
    SplitPairs(_mm512_and_si512(v, _mm512_set1_epi16(15)), &s);
    s.min = _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_srli_epi16(v, 4));
  }
  if constexpr (kFormat.scales == SubScales::kSixBits) {
    const __m128i low = _mm_srl_epi16(Load128(p.scales), _mm_cvtsi32_si128(b % 2 * 4));
    const __m128i upper = _mm_srl_epi16(Load128(p.upper_scales), _mm_cvtsi32_si128(b % 4 * 2));
    s.below = BytesToFloat(_mm_sub_epi8(SixBits(low, upper), _mm_set1_epi8(32)));
  }
  if constexpr (kFormat.scales == SubScales::kSixBitPairs ||
                kFormat.scales == SubScales::kSixBitsMins) {
    const __m128i low = Load128(p.scales);
    const __m128i upper = _mm_srl_epi16(Load128(p.upper_scales), _mm_cvtsi32_si128(b % 2 * 4));
    const __m128i first = SixBits(low, upper);
    const __m128i second = SixBits(_mm_srli_epi16(low, 4), _mm_srli_epi16(upper, 2));
    if constexpr (kFormat.scales == SubScales::kSixBitPairs) {
      s.below = BytesToFloat(_mm_sub_epi8(first, _mm_set1_epi8(32)));
      s.above = BytesToFloat(_mm_sub_epi8(second, _mm_set1_epi8(32)));
    } else {
      s.below = BytesToFloat(first);
      const __m512i min = _mm512_cvtepi8_epi32(_mm_sub_epi8(_mm_setzero_si128(), second));
      s.min = _mm512_mask_blend_epi16(0xaaaaaaaa, min, _mm512_slli_epi32(min, 16));
    }
  }
  return s;
}

static inline __m512 HalfToFloat(const uint8_t* p) { return _mm512_cvtph_ps(Load256(p)); }

template <QuantFormat kFormat>
inline __m512 DOf(const uint8_t* d) {
  if constexpr (!HasE8m0(kFormat)) return HalfToFloat(d);
  const __m512i e = _mm512_cvtepu8_epi32(Load128(d)), one = _mm512_set1_epi32(1);
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, one), 23);
  const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
  return _mm512_castsi512_ps(
      _mm512_mask_blend_epi32(_mm512_cmple_epi32_mask(e, one), normal, subnormal));
}

// acc + one block, in the order of docs/numerics.md, for one column. A sum times its scale is below
// 2^24, so that floats hold it exactly. dot: of the values below and above, where they have scales
// of their own; else of all.
template <QuantFormat kFormat>
inline __m512 Join(const __m512i* dot, const Scales& s, __m512 d, __m512 m, const QuantBlock& x,
                   __m512 acc) {
  const __m512 dx = _mm512_set1_ps(x.d);
  __m512 sum = _mm512_cvtepi32_ps(dot[0]);
  if constexpr (kFormat.scales != SubScales::kNone) sum = _mm512_mul_ps(sum, s.below);
  if constexpr (HasPairs(kFormat)) {
    sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[1]), s.above, sum);
  }
  acc = _mm512_fmadd_ps(sum, _mm512_mul_ps(d, dx), acc);
  if constexpr (!HasM(kFormat)) return acc;
  const __m512 min = _mm512_cvtepi32_ps(_mm512_madd_epi16(s.min, Broadcast(x.sum)));
  return _mm512_fmadd_ps(min, _mm512_mul_ps(m, dx), acc);
}

}  // namespace efedllm::avx512

#endif  // EFEDLLM_LAYERS_KERNELS_AVX512_QUANT_WEIGHTS_H_
