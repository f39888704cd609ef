// How the AVX2 kernels read a block of packed block-format weights (layers/packed_matrix.h): of 16
// rows, as two halves of eight.
#ifndef EFEDLLM_LAYERS_KERNELS_AVX2_QUANT_WEIGHTS_H_
#define EFEDLLM_LAYERS_KERNELS_AVX2_QUANT_WEIGHTS_H_

#include "layers/kernels/avx2/avx2.h"
#include "layers/kernels/group_layout.h"

namespace efedllm::avx2 {

static inline __m128i Load128(const uint8_t* p) {
  return _mm_load_si128(reinterpret_cast<const __m128i*>(p));
}
static inline __m256i Load256(const uint8_t* p) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
}

// Four activations, or the block's two sums, in every lane.
static inline __m256i Broadcast(const void* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm256_set1_epi32(four);
}

// The field of mask's width at the bit `from` of each byte, moved to where mask is, the bit `to`.
static inline __m256i Field(__m256i v, int from, int to, __m256i mask) {
  const __m256i moved =
      from >= to ? _mm256_srli_epi16(v, from - to) : _mm256_slli_epi16(v, to - from);
  return _mm256_and_si256(moved, mask);
}

// Whether weights go in with their sign: those that reach ±127 would not fit a byte's zero point
// and an int16's sum.
static constexpr bool IsSigned(const QuantFormat& f) { return f.zero == 128; }

// Whether a sum of products has the zero point in it.
static constexpr bool HasZero(const QuantFormat& f) { return f.zero != 0 && !IsSigned(f); }

// Quads of a block whose sums of two products an int16 holds.
static constexpr int QuadsPerSum(const QuantFormat& f) {
  const int max = IsSigned(f)                     ? 128
                  : f.codebook == Codebook::kNone ? (1 << f.bits) - 1
                                                  : 12 + f.zero;
  int quads = HasPairs(f) ? 4 : 8;
  while (quads * 2 * 127 * max > 32767) quads /= 2;
  return quads;
}

// Weights 4i to 4i + 3 of half r of the rows: plus the zero point, or signed.
template <QuantFormat kFormat>
inline __m256i Weights(const BlockParts& p, int i, int r) {
  constexpr QuantFormat f = kFormat;
  const int g = i % 4, above = i / 4;
  if constexpr (f.bits == 8) return Load256(p.codes + i * 64 + r * 32);
  __m256i code = _mm256_setzero_si256();
  if constexpr (HasNibbles(f)) {
    code = Field(Load256(p.codes + g * 64 + r * 32), 4 * above, 0, _mm256_set1_epi8(15));
  }
  if constexpr (HasTwoBits(f)) {
    constexpr int kTo = TwoBitsAt(f);
    const __m256i v = Load256(p.pairs + g / 2 * 64 + r * 32);
    code = _mm256_or_si256(code, Field(v, g % 2 * 4 + above * 2, kTo, _mm256_set1_epi8(3 << kTo)));
  }
  if constexpr (HasOneBit(f)) {
    constexpr int kTo = OneBitAt(f);
    const __m256i v = Load256(p.bits + r * 32);
    code = _mm256_or_si256(code, Field(v, above * 4 + g, kTo, _mm256_set1_epi8(1 << kTo)));
  }
  if constexpr (f.codebook != Codebook::kNone) {
    const __m128i book = _mm_loadu_si128(reinterpret_cast<const __m128i*>(CodebookValues(f)));
    const __m128i values = IsSigned(f) ? book : _mm_add_epi8(book, _mm_set1_epi8(f.zero));
    code = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), code);
  }
  return code;
}

// Of the two halves of the rows, as pairs of int16.
struct Scales {
  __m256i below[2];  // the scale of a block's values 0 to 15, twice
  __m256i above[2];  // of those from 16 on
  __m256i min[2];    // of both
};

// Bytes of 16 rows, each as two int16.
static inline void Twice(__m128i v, __m256i* out) {
  const __m256i low = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1,  //
                                       4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
  const __m256i both = _mm256_broadcastsi128_si256(v);
  out[0] = _mm256_shuffle_epi8(both, low);
  out[1] = _mm256_shuffle_epi8(_mm256_bsrli_epi128(both, 8), low);
}

// v: pairs of int16, of the values below and above.
static inline void SplitPairs(__m256i v, __m256i* below, __m256i* above) {
  *below = _mm256_blend_epi16(v, _mm256_slli_epi32(v, 16), 0xaa);
  *above = _mm256_blend_epi16(v, _mm256_srli_epi32(v, 16), 0x55);
}

// The low four bits of each byte, and two bits of `upper` above them.
static inline __m128i SixBits(__m128i low, __m128i upper) {
  return _mm_or_si128(_mm_and_si128(low, _mm_set1_epi8(15)),
                      _mm_slli_epi16(_mm_and_si128(upper, _mm_set1_epi8(3)), 4));
}

template <QuantFormat kFormat>
inline Scales ScalesOf(const BlockParts& p, size_t b) {
  Scales s{};
  if constexpr (kFormat.scales == SubScales::kNone) {
    for (int r = 0; r < 2; ++r) s.below[r] = s.above[r] = s.min[r] = _mm256_set1_epi16(1);
  }
  if constexpr (kFormat.scales == SubScales::kInt8Pairs) {
    for (int r = 0; r < 2; ++r) {
      SplitPairs(_mm256_cvtepi8_epi16(Load128(p.scales + r * 16)), &s.below[r], &s.above[r]);
    }
  }
  if constexpr (kFormat.scales == SubScales::kFourBitsMins) {
    for (int r = 0; r < 2; ++r) {
      const __m256i v = _mm256_cvtepu8_epi16(Load128(p.scales + r * 16));
      SplitPairs(_mm256_and_si256(v, _mm256_set1_epi16(15)), &s.below[r], &s.above[r]);
      s.min[r] = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_srli_epi16(v, 4));
    }
  }
  if constexpr (kFormat.scales == SubScales::kSixBits) {
    const __m128i low = _mm_srl_epi16(Load128(p.scales), _mm_cvtsi32_si128(b % 2 * 4));
    const __m128i upper = _mm_srl_epi16(Load128(p.upper_scales), _mm_cvtsi32_si128(b % 4 * 2));
    Twice(SixBits(low, upper), s.below);
    for (int r = 0; r < 2; ++r) {
      s.below[r] = s.above[r] = _mm256_sub_epi16(s.below[r], _mm256_set1_epi16(32));
    }
  }
  if constexpr (kFormat.scales == SubScales::kSixBitPairs ||
                kFormat.scales == SubScales::kSixBitsMins) {
    const __m128i low = Load128(p.scales);
    const __m128i upper = _mm_srl_epi16(Load128(p.upper_scales), _mm_cvtsi32_si128(b % 2 * 4));
    Twice(SixBits(low, upper), s.below);
    Twice(SixBits(_mm_srli_epi16(low, 4), _mm_srli_epi16(upper, 2)), s.above);
    for (int r = 0; r < 2; ++r) {
      if constexpr (kFormat.scales == SubScales::kSixBitPairs) {
        s.below[r] = _mm256_sub_epi16(s.below[r], _mm256_set1_epi16(32));
        s.above[r] = _mm256_sub_epi16(s.above[r], _mm256_set1_epi16(32));
      } else {
        s.min[r] = _mm256_sub_epi16(_mm256_setzero_si256(), s.above[r]);
        s.above[r] = s.below[r];
      }
    }
  }
  return s;
}

static inline __m256 HalfToFloat(const uint8_t* p) { return _mm256_cvtph_ps(Load128(p)); }

// d of half r of the rows.
template <QuantFormat kFormat>
inline __m256 DOf(const uint8_t* d, int r) {
  if constexpr (!HasE8m0(kFormat)) return HalfToFloat(d + r * 16);
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(d + r * 8));
  const __m256i e = _mm256_cvtepu8_epi32(bytes), one = _mm256_set1_epi32(1);
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
  const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(subnormal, normal, _mm256_cmpgt_epi32(e, one)));
}

}  // namespace efedllm::avx2

#endif  // EFEDLLM_LAYERS_KERNELS_AVX2_QUANT_WEIGHTS_H_
