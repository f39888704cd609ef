// Where the parts of a packed group of block-format weights lie (layers/packed_matrix.h). Static,
// since files of every ISA compile it.
#ifndef EFEDLLM_LAYERS_KERNELS_GROUP_LAYOUT_H_
#define EFEDLLM_LAYERS_KERNELS_GROUP_LAYOUT_H_

#include <cstddef>

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

// blocks: of 32 values.
[[maybe_unused]] static constexpr GroupLayout LayoutOf(const QuantFormat& f, size_t blocks) {
  GroupLayout at{};
  at.pairs = f.bits == 6 ? 256 * blocks : 0;
  at.bits = (CodeBytesPerBlock(f) - 64) * blocks;
  at.scales = CodeBytesPerBlock(f) * blocks;
  size_t low = 0, upper = 0;  // bytes in two and in four blocks
  switch (f.scales) {
    case SubScales::kNone:
      break;
    case SubScales::kInt8Pairs:
    case SubScales::kFourBitsMins:
      low = 64;
      break;
    case SubScales::kSixBitPairs:
    case SubScales::kSixBitsMins:
      low = 32;
      upper = 32;
      break;
    case SubScales::kSixBits:
      low = 16;
      upper = 16;
      break;
  }
  at.upper_scales = at.scales + blocks / 2 * low;
  at.d = at.upper_scales + blocks / 4 * upper;
  return at;
}

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_KERNELS_GROUP_LAYOUT_H_
