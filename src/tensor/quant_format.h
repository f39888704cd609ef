// What GGUF's block formats have in common, and the facts in which they differ. A weight is
//
//   d·scale·w + m·min        w = code - zero, or codebook[code]
//
// with codes of 2 to 8 bits, an integer scale and min for 16 or 32 values, and d and m for a whole
// block. Formats without such scales have 1 in their place, and those without m end before the
// plus. Data only, for kernels of every ISA.
#ifndef EFEDLLM_TENSOR_QUANT_FORMAT_H_
#define EFEDLLM_TENSOR_QUANT_FORMAT_H_

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace efedllm {

enum class Codebook { kNone, kIq4, kMxfp4 };

// Integers between a block's d and its codes, and their bits. Formats with them have blocks of 256
// values, those without 32.
enum class SubScales {
  kNone,
  kInt8Pairs,     // a scale for 16 values
  kSixBitPairs,   // a scale for 16 values, stored 32 too large
  kSixBits,       // a scale for 32 values, stored 32 too large
  kSixBitsMins,   // a scale and a min for 32 values
  kFourBitsMins,  // a scale and a min for 16 values
};

inline constexpr int kNoOffset = -1;

struct QuantFormat {
  DType dtype;
  int bits;                             // of a code
  int zero;                             // what makes weights unsigned: 0 < w + zero < 256
  int d_offset = 0;                     // bytes from a block's start; f16, or one byte in MXFP4
  int m_offset = kNoOffset;             // f16
  SubScales scales = SubScales::kNone;  //
  Codebook codebook = Codebook::kNone;  // of 4-bit codes
};

inline constexpr QuantFormat kQuantFormats[] = {
    {.dtype = DType::kQ8_0, .bits = 8, .zero = 128},
    {.dtype = DType::kQ4_0, .bits = 4, .zero = 8},
    {.dtype = DType::kQ4_1, .bits = 4, .zero = 0, .m_offset = 2},
    {.dtype = DType::kQ5_0, .bits = 5, .zero = 16},
    {.dtype = DType::kQ5_1, .bits = 5, .zero = 0, .m_offset = 2},
    {.dtype = DType::kQ2_K,
     .bits = 2,
     .zero = 0,
     .d_offset = 80,
     .m_offset = 82,
     .scales = SubScales::kFourBitsMins},
    {.dtype = DType::kQ3_K,
     .bits = 3,
     .zero = 4,
     .d_offset = 108,
     .scales = SubScales::kSixBitPairs},
    {.dtype = DType::kQ4_K, .bits = 4, .zero = 0, .m_offset = 2, .scales = SubScales::kSixBitsMins},
    {.dtype = DType::kQ5_K, .bits = 5, .zero = 0, .m_offset = 2, .scales = SubScales::kSixBitsMins},
    {.dtype = DType::kQ6_K,
     .bits = 6,
     .zero = 32,
     .d_offset = 208,
     .scales = SubScales::kInt8Pairs},
    {.dtype = DType::kIQ4_NL, .bits = 4, .zero = 128, .codebook = Codebook::kIq4},
    {.dtype = DType::kIQ4_XS,
     .bits = 4,
     .zero = 128,
     .scales = SubScales::kSixBits,
     .codebook = Codebook::kIq4},
    {.dtype = DType::kMXFP4, .bits = 4, .zero = 16, .codebook = Codebook::kMxfp4},
};
inline constexpr size_t kQuantFormatCount = sizeof kQuantFormats / sizeof kQuantFormats[0];

inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
// Twice E2M1's numbers; MXFP4's d is half of its exponent's power of two.
inline constexpr int8_t kMxfp4Values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};

// static: files of different ISAs must not share a copy.
[[maybe_unused]] static constexpr bool HasM(const QuantFormat& f) {
  return f.m_offset != kNoOffset;
}
// Whether d is an exponent of 8 bits.
[[maybe_unused]] static constexpr bool HasE8m0(const QuantFormat& f) {
  return f.codebook == Codebook::kMxfp4;
}
// Whether 16 values have a scale of their own.
[[maybe_unused]] static constexpr bool HasPairs(const QuantFormat& f) {
  return f.scales == SubScales::kInt8Pairs || f.scales == SubScales::kSixBitPairs ||
         f.scales == SubScales::kFourBitsMins;
}
// A codebook's 16 numbers.
[[maybe_unused]] static constexpr const int8_t* CodebookValues(const QuantFormat& f) {
  return f.codebook == Codebook::kIq4 ? kIq4Values : kMxfp4Values;
}

}  // namespace efedllm

#endif  // EFEDLLM_TENSOR_QUANT_FORMAT_H_
