// Block-format weights times int8 activations, for 64-bit ARM. Compiled twice, by the files that
// define Dot<kMax, kQuads>(w, q): with int8 dot products and without. Everything is static: the
// copies have other ISA flags.
//
//   w: [kQuads] of four rows times four weights, |w| <= kMax; q: [4 * kQuads] activations.
//   Returns the four rows' exact sums of products.
#ifndef EFEDLLM_LAYERS_KERNELS_NEON_MATMUL_QUANT_H_
#define EFEDLLM_LAYERS_KERNELS_NEON_MATMUL_QUANT_H_

#include <arm_neon.h>

#include <utility>

#include "layers/kernels/group_layout.h"
#include "layers/kernels/kernel_table.h"

namespace efedllm::neon {
namespace {

template <int kMax, int kQuads>
int32x4_t Dot(const int8x16_t* w, const int8_t* q);

constexpr size_t kRows = 16;

// The first columns to read a group ask for weights this many bytes ahead.
constexpr size_t kPrefetchBytes = 2048;

// What a kernel reads: a group, and its columns.
struct Place {
  const uint8_t* group;
  GroupLayout at;
  const QuantBlock* x;
  size_t stride;
};

// Asks for what is read kPrefetchBytes of codes after block b, in this group or the next.
template <QuantFormat kFormat>
inline void Prefetch(const Place& p, size_t b, size_t blocks, size_t group_bytes) {
  const size_t ahead = b + kPrefetchBytes / CodeBytesPerBlock(kFormat);
  if (ahead < blocks) return PrefetchBlock<kFormat>(p.group, p.at, ahead);
  PrefetchBlock<kFormat>(p.group + group_bytes, p.at, ahead - blocks);
}

// The largest |w|.
constexpr int MaxWeight(const QuantFormat& f) {
  if (f.codebook != Codebook::kNone) return f.codebook == Codebook::kIq4 ? 127 : 12;
  return f.zero > 0 ? f.zero : (1 << f.bits) - 1;
}

// The field of mask's width at the bit kFrom of each byte, moved to where mask is, the bit kTo.
template <int kFrom, int kTo>
inline uint8x16_t Field(uint8x16_t v, int mask) {
  if constexpr (kFrom > kTo) v = vshrq_n_u8(v, kFrom - kTo);
  if constexpr (kFrom < kTo) v = vshlq_n_u8(v, kTo - kFrom);
  return vandq_u8(v, vdupq_n_u8(static_cast<uint8_t>(mask)));
}

// Weights 4g to 4g + 3 of half h of block b, of rows 4v to 4v + 3.
template <QuantFormat kFormat, int g, int h>
inline int8x16_t WeightsAt(const Place& p, size_t b, size_t v) {
  constexpr QuantFormat f = kFormat;
  const uint8_t* group = p.group + v * 16;
  if constexpr (f.bits == 8) {
    return vreinterpretq_s8_u8(vld1q_u8(group + ((b * 2 + h) * 4 + g) * 64));
  }
  uint8x16_t code = vdupq_n_u8(0);
  if constexpr (HasNibbles(f)) code = Field<4 * h, 0>(vld1q_u8(group + (b * 4 + g) * 64), 15);
  if constexpr (HasTwoBits(f)) {
    constexpr int kTo = TwoBitsAt(f);
    const uint8x16_t plane = vld1q_u8(group + p.at.pairs + (b * 2 + g / 2) * 64);
    code = vorrq_u8(code, Field<g % 2 * 4 + h * 2, kTo>(plane, 3 << kTo));
  }
  if constexpr (HasOneBit(f)) {
    constexpr int kTo = OneBitAt(f);
    code = vorrq_u8(code, Field<h * 4 + g, kTo>(vld1q_u8(group + p.at.bits + b * 64), 1 << kTo));
  }
  if constexpr (f.codebook != Codebook::kNone) return vqtbl1q_s8(vld1q_s8(CodebookValues(f)), code);
  return vsubq_s8(vreinterpretq_s8_u8(code), vdupq_n_s8(f.zero));
}

template <QuantFormat kFormat, size_t... kQuad>
inline void Weights(const Place& p, size_t b, size_t v, std::index_sequence<kQuad...>,
                    int8x16_t* w) {
  ((w[kQuad] = WeightsAt<kFormat, kQuad % 4, kQuad / 4>(p, b, v)), ...);
}

// Of four rows: the scales and mins of a block's values below and above.
struct Scales {
  int32x4_t scale[2];
  int32x4_t min[2];
};

inline uint32x4_t LoadFourBytes(const uint8_t* p) {
  uint32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
}

// Lanes of pairs of int16.
inline int32x4_t LowHalves(int16x8_t v) {
  return vshrq_n_s32(vshlq_n_s32(vreinterpretq_s32_s16(v), 16), 16);
}
inline int32x4_t HighHalves(int16x8_t v) { return vshrq_n_s32(vreinterpretq_s32_s16(v), 16); }

// Four bits of low, two of high's bits from `from` on above them.
inline int32x4_t SixBits(uint32x4_t low, uint32x4_t high, int from) {
  const uint32x4_t upper = vandq_u32(vshlq_u32(high, vdupq_n_s32(4 - from)), vdupq_n_u32(0x30));
  return vreinterpretq_s32_u32(vorrq_u32(vandq_u32(low, vdupq_n_u32(15)), upper));
}

template <QuantFormat kFormat>
inline Scales ScalesOf(const Place& p, size_t b, size_t v) {
  const uint8_t* scales = p.group + p.at.scales + v * 4;
  const uint8_t* upper = p.group + p.at.upper_scales + v * 4;
  const int32x4_t bias = vdupq_n_s32(32);
  Scales s = {};
  if constexpr (kFormat.scales == SubScales::kInt8Pairs) {
    const int8_t* pairs = reinterpret_cast<const int8_t*>(p.group + p.at.scales + b * 32 + v * 8);
    const int16x8_t both = vmovl_s8(vld1_s8(pairs));
    s.scale[0] = LowHalves(both), s.scale[1] = HighHalves(both);
  }
  if constexpr (kFormat.scales == SubScales::kFourBitsMins) {
    const uint16x8_t both = vmovl_u8(vld1_u8(p.group + p.at.scales + b * 32 + v * 8));
    const int16x8_t scale = vreinterpretq_s16_u16(vandq_u16(both, vdupq_n_u16(15)));
    const int16x8_t min = vnegq_s16(vreinterpretq_s16_u16(vshrq_n_u16(both, 4)));
    s.scale[0] = LowHalves(scale), s.scale[1] = HighHalves(scale);
    s.min[0] = LowHalves(min), s.min[1] = HighHalves(min);
  }
  if constexpr (kFormat.scales == SubScales::kSixBits) {
    const int odd = static_cast<int>(b % 2 * 4);
    const uint32x4_t low = vshlq_u32(LoadFourBytes(scales + b / 2 * 16), vdupq_n_s32(-odd));
    const uint32x4_t high = LoadFourBytes(upper + b / 4 * 16);
    s.scale[0] = vsubq_s32(SixBits(low, high, static_cast<int>(b % 4 * 2)), bias);
  }
  if constexpr (kFormat.scales == SubScales::kSixBitPairs ||
                kFormat.scales == SubScales::kSixBitsMins) {
    const int odd = static_cast<int>(b % 2 * 4);
    const uint32x4_t low = LoadFourBytes(scales + b * 16);
    const uint32x4_t high = LoadFourBytes(upper + b / 2 * 16);
    const int32x4_t first = SixBits(low, high, odd);
    const int32x4_t second = SixBits(vshrq_n_u32(low, 4), high, odd + 2);
    if constexpr (kFormat.scales == SubScales::kSixBitPairs) {
      s.scale[0] = vsubq_s32(first, bias), s.scale[1] = vsubq_s32(second, bias);
    } else {
      s.scale[0] = first, s.min[0] = vnegq_s32(second);
    }
  }
  return s;
}

inline float32x4_t LoadHalves(const uint8_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

template <QuantFormat kFormat>
inline float32x4_t DOf(const uint8_t* d, size_t v) {
  if constexpr (!HasE8m0(kFormat)) return LoadHalves(d + v * 8);
  const uint32x4_t e = LoadFourBytes(d + v * 4), one = vdupq_n_u32(1);
  const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, one), 23);
  const uint32x4_t subnormal = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
  return vreinterpretq_f32_u32(vbslq_u32(vcgtq_u32(e, one), normal, subnormal));
}

// The exact sum of block b's products with one column, times the scales.
template <QuantFormat kFormat>
inline int32x4_t ScaledDot(const int8x16_t* w, const Scales& s, const QuantBlock& x) {
  constexpr int kMax = MaxWeight(kFormat);
  if constexpr (HasPairs(kFormat)) {
    const int32x4_t below = vmulq_s32(Dot<kMax, 4>(w, x.q), s.scale[0]);
    return vmlaq_s32(below, Dot<kMax, 4>(w + 4, x.q + 16), s.scale[1]);
  }
  const int32x4_t dot = Dot<kMax, 8>(w, x.q);
  return kFormat.scales == SubScales::kNone ? dot : vmulq_s32(dot, s.scale[0]);
}

template <QuantFormat kFormat>
inline int32x4_t ScaledMin(const Scales& s, const QuantBlock& x) {
  if constexpr (HasPairs(kFormat)) {
    return vmlaq_n_s32(vmulq_n_s32(s.min[0], x.sum[0]), s.min[1], x.sum[1]);
  }
  const int32_t sum = x.sum[0] + x.sum[1];
  return kFormat.scales == SubScales::kNone ? vdupq_n_s32(sum) : vmulq_n_s32(s.min[0], sum);
}

// acc += block b of rows 4v to 4v + 3, in the order of docs/numerics.md.
template <QuantFormat kFormat, int kColumns>
inline void AddBlock(const Place& p, size_t b, size_t v, float32x4_t* acc) {
  int8x16_t w[8];
  Weights<kFormat>(p, b, v, std::make_index_sequence<8>(), w);
  const Scales scales = ScalesOf<kFormat>(p, b, v);
  const uint8_t* d_at = p.group + p.at.d + b / BlocksPerD(kFormat) * DBytes(kFormat);
  const float32x4_t d = DOf<kFormat>(d_at, v);
  for (int c = 0; c < kColumns; ++c) {
    const QuantBlock& x = p.x[c * p.stride + b];
    const int32x4_t dot = ScaledDot<kFormat>(w, scales, x);
    acc[c] = vfmaq_f32(acc[c], vcvtq_f32_s32(dot), vmulq_n_f32(d, x.d));
    if constexpr (HasM(kFormat)) {
      const float32x4_t m = LoadHalves(d_at + 32 + v * 8);
      const int32x4_t min = ScaledMin<kFormat>(scales, x);
      acc[c] = vfmaq_f32(acc[c], vcvtq_f32_s32(min), vmulq_n_f32(m, x.d));
    }
  }
}

// kVectors times four rows of the group of 16 rows from row on, from vector first on, times
// kColumns columns from column on.
template <QuantFormat kFormat, int kVectors, int kColumns>
void Tile(const MatmulArgs& a, size_t row, size_t first, size_t column) {
  const size_t blocks = a.k / kQuantValues;
  const Place p = {a.w + row / kRows * a.group_bytes, LayoutOf(kFormat, blocks),
                   static_cast<const QuantBlock*>(a.x) + column * a.x_stride, a.x_stride};
  float32x4_t acc[kVectors][kColumns];
  for (auto& vector : acc) {
    for (float32x4_t& v : vector) v = vdupq_n_f32(0);
  }
  for (size_t b = 0; b < blocks; ++b) {
    if (column == 0 && first == 0) Prefetch<kFormat>(p, b, blocks, a.group_bytes);
    for (int v = 0; v < kVectors; ++v) AddBlock<kFormat, kColumns>(p, b, first + v, acc[v]);
  }
  row += first * 4;
  const size_t left = row < a.rows ? a.rows - row : 0;
  const size_t rows = left < kVectors * 4 ? left : kVectors * 4;
  for (int c = 0; c < kColumns; ++c) {
    float all[kVectors * 4];
    for (int v = 0; v < kVectors; ++v) vst1q_f32(all + 4 * v, acc[v][c]);
    __builtin_memcpy(a.y + (column + c) * a.y_stride + row, all, rows * sizeof(float));
  }
}

template <QuantFormat kFormat>
void Matmul(const MatmulArgs& a) {
  for (size_t row = 0; row < a.rows; row += kRows) {
    size_t c = 0;
    // Many columns share the work of taking codes apart; half a group's rows leave registers for
    // their sums.
    for (; c + 8 <= a.columns; c += 8) {
      Tile<kFormat, 2, 8>(a, row, 0, c);
      Tile<kFormat, 2, 8>(a, row, 2, c);
    }
    if (c + 4 <= a.columns) Tile<kFormat, 4, 4>(a, row, 0, c), c += 4;
    if (a.columns - c == 3) Tile<kFormat, 4, 3>(a, row, 0, c);
    if (a.columns - c == 2) Tile<kFormat, 4, 2>(a, row, 0, c);
    if (a.columns - c == 1) Tile<kFormat, 4, 1>(a, row, 0, c);
  }
}

template <size_t... kIndex>
constexpr QuantMatmuls AllMatmuls(std::index_sequence<kIndex...>) {
  return {{Matmul<kQuantFormats[kIndex]>...}};
}

}  // namespace
}  // namespace efedllm::neon

#endif  // EFEDLLM_LAYERS_KERNELS_NEON_MATMUL_QUANT_H_
