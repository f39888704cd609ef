// Where the parts of a packed group of block-format weights lie (layers/packed_matrix.h). Static,
// since files of every ISA compile it.
#ifndef EFEDLLM_LAYERS_KERNELS_GROUP_LAYOUT_H_
#define EFEDLLM_LAYERS_KERNELS_GROUP_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "tensor/quant_format.h"

namespace efedllm {

// Bytes from the group's start. Codes of 8 bits and low nibbles lie at 0.
struct GroupLayout {
  size_t pairs;         // the plane of two bits
  size_t bits;          // the plane of single bits
  size_t scales;        // with their low nibbles, if they have six bits
  size_t upper_scales;  // of six bits
  size_t d;
};

[[maybe_unused]] static constexpr size_t CodeBytesPerBlock(const QuantFormat& f) {
  return static_cast<size_t>(f.bits) * 64;
}

// Which planes make up a code, and where in it they stand. Low nibbles stand at 0.
[[maybe_unused]] static constexpr bool HasNibbles(const QuantFormat& f) { return f.bits >= 4; }
[[maybe_unused]] static constexpr bool HasTwoBits(const QuantFormat& f) {
  return f.bits <= 3 || f.bits == 6;
}
[[maybe_unused]] static constexpr int TwoBitsAt(const QuantFormat& f) {
  return f.bits == 6 ? 4 : 0;
}
[[maybe_unused]] static constexpr bool HasOneBit(const QuantFormat& f) {
  return f.bits == 3 || f.bits == 5;
}
[[maybe_unused]] static constexpr int OneBitAt(const QuantFormat& f) { return f.bits - 1; }

// Blocks of 32 values that have a d in common.
[[maybe_unused]] static constexpr size_t BlocksPerD(const QuantFormat& f) {
  return f.scales == SubScales::kNone ? 1 : 8;
}

// Bytes of 16 d, with their m.
[[maybe_unused]] static constexpr size_t DBytes(const QuantFormat& f) {
  return HasE8m0(f) ? 16 : HasM(f) ? 64 : 32;
}

// Bytes of scales (of their low nibbles, if they have six bits) in two blocks.
[[maybe_unused]] static constexpr size_t ScaleBytes(const QuantFormat& f) {
  switch (f.scales) {
    case SubScales::kNone:
      return 0;
    case SubScales::kSixBits:
      return 16;
    case SubScales::kSixBitPairs:
    case SubScales::kSixBitsMins:
      return 32;
    case SubScales::kInt8Pairs:
    case SubScales::kFourBitsMins:
      break;
  }
  return 64;
}
// Bytes of upper bits of scales in four blocks.
[[maybe_unused]] static constexpr size_t UpperScaleBytes(const QuantFormat& f) {
  return ScaleBytes(f) == 64 ? 0 : ScaleBytes(f);
}

// blocks: of 32 values.
[[maybe_unused]] static constexpr GroupLayout LayoutOf(const QuantFormat& f, size_t blocks) {
  GroupLayout at{};
  at.pairs = f.bits == 6 ? 256 * blocks : 0;
  at.bits = (CodeBytesPerBlock(f) - 64) * blocks;
  at.scales = CodeBytesPerBlock(f) * blocks;
  at.upper_scales = at.scales + blocks / 2 * ScaleBytes(f);
  at.d = at.upper_scales + blocks / 4 * UpperScaleBytes(f);
  return at;
}

// Asks for all that block b reads, which lies in up to five places: too many for the CPU to see
// them coming by itself (measured: Q2_K streams a third faster).
template <QuantFormat kFormat>
static inline void PrefetchBlock(const uint8_t* group, const GroupLayout& at, size_t b) {
  constexpr QuantFormat f = kFormat;
  const auto ask = [group](size_t from, size_t bytes) {
    // Into the second-level cache: the first can't wait for enough lines at once (measured: 12 GB/s
    // of 14 instead of 14).
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(group + from + i, 0, 2);
  };
  if (f.bits == 8) {
    ask(b * 512, 512);
  } else {
    if (HasNibbles(f)) ask(b * 256, 256);
    if (HasTwoBits(f)) ask(at.pairs + b * 128, 128);
    if (HasOneBit(f)) ask(at.bits + b * 64, 64);
  }
  if (ScaleBytes(f) > 0) ask(at.scales + b / 2 * ScaleBytes(f), 1);
  if (UpperScaleBytes(f) > 0 && b % 8 == 0) ask(at.upper_scales + b / 4 * UpperScaleBytes(f), 1);
  if (b % BlocksPerD(f) == 0) ask(at.d + b / BlocksPerD(f) * DBytes(f), 1);
}

// Asks for what is read kBytes of codes after block b, in this group or the next.
template <QuantFormat kFormat, size_t kBytes>
static inline void PrefetchAhead(const uint8_t* group, size_t group_bytes, const GroupLayout& at,
                                 size_t b, size_t blocks) {
  const size_t ahead = b + kBytes / CodeBytesPerBlock(kFormat);
  if (ahead < blocks) return PrefetchBlock<kFormat>(group, at, ahead);
  PrefetchBlock<kFormat>(group + group_bytes, at, ahead - blocks);
}

// Where block b of a group begins in each part.
struct BlockParts {
  const uint8_t* codes;  // of 8 bits, or low nibbles
  const uint8_t* pairs;
  const uint8_t* bits;
  const uint8_t* scales;
  const uint8_t* upper_scales;
  const uint8_t* d;
};

template <QuantFormat kFormat>
static inline BlockParts PartsOf(const uint8_t* group, const GroupLayout& at, size_t b) {
  constexpr QuantFormat f = kFormat;
  return {
      .codes = group + b * (f.bits == 8 ? 512 : 256),
      .pairs = group + at.pairs + b * 128,
      .bits = group + at.bits + b * 64,
      .scales = group + at.scales + (ScaleBytes(f) == 16 ? b / 2 * 16 : b * (ScaleBytes(f) / 2)),
      .upper_scales = group + at.upper_scales +
                      (UpperScaleBytes(f) == 16 ? b / 4 * 16 : b / 2 * (UpperScaleBytes(f) / 2)),
      .d = group + at.d + b / BlocksPerD(f) * DBytes(f)};
}

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_KERNELS_GROUP_LAYOUT_H_
