#include "layers/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "layers/kernels/group_layout.h"
#include "tensor/blocks.h"

namespace efedllm {
namespace {

constexpr uint64_t kRows = kGroupRows;

// All of these put src, a row of the matrix as GGUF has it, into place r of a zeroed group.

template <size_t kBytes>
void PackFloats(const uint8_t* src, size_t cols, size_t r, uint8_t* group) {
  for (size_t k = 0; k < cols; ++k) {
    std::memcpy(group + (k * kRows + r) * kBytes, src + k * kBytes, kBytes);
  }
}

// The bits [at, at + bits) of 32 codes: of i below, of 16 + i above, in out[i].
void Fold(const uint8_t* codes, int at, int bits, uint8_t* out) {
  const int mask = (1 << bits) - 1;
  for (size_t i = 0; i < 16; ++i) {
    out[i] = static_cast<uint8_t>((codes[i] >> at & mask) | (codes[16 + i] >> at & mask) << bits);
  }
}

// count quads of a row's block b, to [b][count][r].
void PutQuads(const uint8_t* quads, size_t count, size_t b, size_t r, uint8_t* plane) {
  for (size_t g = 0; g < count; ++g) {
    std::memcpy(plane + ((b * count + g) * kRows + r) * 4, quads + g * 4, 4);
  }
}

void PutCodes(const QuantFormat& f, const GroupLayout& at, const uint8_t* codes, size_t b, size_t r,
              uint8_t* group) {
  uint8_t fields[16], joined[8];
  if (HasNibbles(f)) {
    Fold(codes, 0, 4, fields);
    PutQuads(fields, 4, b, r, group);
  }
  if (HasTwoBits(f)) {
    Fold(codes, TwoBitsAt(f), 2, fields);
    for (size_t i = 0; i < 8; ++i) {
      const uint8_t* quad = fields + i / 4 * 8 + i % 4;
      joined[i] = static_cast<uint8_t>(quad[0] | quad[4] << 4);
    }
    PutQuads(joined, 2, b, r, group + at.pairs);
  }
  if (HasOneBit(f)) {
    for (size_t i = 0; i < 4; ++i) {
      int bits = 0;
      for (size_t g = 0; g < 4; ++g) {
        bits |= (codes[4 * g + i] >> OneBitAt(f) & 1) << g;
        bits |= (codes[16 + 4 * g + i] >> OneBitAt(f) & 1) << (4 + g);
      }
      joined[i] = static_cast<uint8_t>(bits);
    }
    PutQuads(joined, 1, b, r, group + at.bits);
  }
}

// scale, min: of the block's two halves.
void PutScales(SubScales kind, const GroupLayout& at, const int8_t* scale, const int8_t* min,
               size_t b, size_t r, uint8_t* group) {
  uint8_t* scales = group + at.scales;
  uint8_t* upper = group + at.upper_scales;
  switch (kind) {
    case SubScales::kNone:
      return;
    case SubScales::kInt8Pairs:
      std::memcpy(scales + (b * kRows + r) * 2, scale, 2);
      return;
    case SubScales::kFourBitsMins:
      for (size_t h = 0; h < 2; ++h) {
        scales[(b * kRows + r) * 2 + h] = static_cast<uint8_t>(scale[h] | -min[h] << 4);
      }
      return;
    case SubScales::kSixBitPairs:
    case SubScales::kSixBitsMins: {
      const bool pairs = kind == SubScales::kSixBitPairs;
      const int first = pairs ? scale[0] + 32 : scale[0];
      const int second = pairs ? scale[1] + 32 : -min[0];
      scales[b * kRows + r] = static_cast<uint8_t>((first & 15) | second << 4);
      upper[b / 2 * kRows + r] |=
          static_cast<uint8_t>((first >> 4 | second >> 4 << 2) << (b % 2 * 4));
      return;
    }
    case SubScales::kSixBits: {
      const int value = scale[0] + 32;
      scales[b / 2 * kRows + r] |= static_cast<uint8_t>((value & 15) << (b % 2 * 4));
      upper[b / 4 * kRows + r] |= static_cast<uint8_t>(value >> 4 << (b % 4 * 2));
      return;
    }
  }
}

void PackQuants(const QuantFormat& f, const uint8_t* src, size_t cols, size_t r, uint8_t* group) {
  const size_t values = BlockValues(f.dtype), bytes = BlockBytes(f.dtype);
  const size_t d_bytes = HasE8m0(f) ? 1 : 2;
  const GroupLayout at = LayoutOf(f, cols / 32);
  // Blocks of 32 whole bytes or nibbles already have them in quads, at their end.
  const bool has_quads = f.scales == SubScales::kNone && f.bits % 4 == 0;
  const size_t quads = static_cast<size_t>(f.bits);
  UnpackedBlock block;
  for (size_t i = 0; i < cols / values; ++i, src += bytes) {
    if (has_quads) {
      PutQuads(src + bytes - quads * 4, quads, i, r, group);
    } else {
      UnpackBlock(f, src, &block);
      for (size_t j = 0; j < values / 32; ++j) {
        const size_t b = i * (values / 32) + j;
        PutCodes(f, at, block.codes + j * 32, b, r, group);
        PutScales(f.scales, at, block.scales + j * 2, block.mins + j * 2, b, r, group);
      }
    }
    uint8_t* d = group + at.d + i * DBytes(f);
    std::memcpy(d + r * d_bytes, src + f.d_offset, d_bytes);
    if (HasM(f)) std::memcpy(d + (kRows + r) * 2, src + f.m_offset, 2);
  }
}

void PackRow(DType dtype, const uint8_t* src, size_t cols, size_t r, uint8_t* group) {
  switch (dtype) {
    case DType::kF32:
      return PackFloats<4>(src, cols, r, group);
    case DType::kF16:
    case DType::kBF16:
      return PackFloats<2>(src, cols, r, group);
    default:
      return PackQuants(QuantFormatOf(dtype), src, cols, r, group);
  }
}

}  // namespace

uint64_t PackedGroupBytes(DType dtype, uint64_t cols) {
  CHECK(cols % BlockValues(dtype) == 0);
  const uint64_t bytes = cols / BlockValues(dtype) * BlockBytes(dtype) * kGroupRows;
  return (bytes + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment;
}

uint64_t PackedMatrixBytes(DType dtype, uint64_t rows, uint64_t cols) {
  return (rows + kGroupRows - 1) / kGroupRows * PackedGroupBytes(dtype, cols);
}

PackedMatrix PackedMatrix::Slice(size_t first, size_t count) const {
  CHECK(first % kGroupRows == 0 && first + count <= rows);
  return {dtype, count, cols, data + first / kGroupRows * PackedGroupBytes(dtype, cols)};
}

void PackGroups(DType dtype, size_t rows, size_t cols, const uint8_t* gguf, uint8_t* packed,
                size_t first_group, size_t last_group) {
  const uint64_t group_bytes = PackedGroupBytes(dtype, cols);
  const uint64_t row_bytes = cols / BlockValues(dtype) * BlockBytes(dtype);
  for (size_t g = first_group; g < last_group; ++g) {
    uint8_t* group = packed + g * group_bytes;
    std::memset(group, 0, group_bytes);
    const size_t count = std::min(kGroupRows, rows - g * kGroupRows);
    for (size_t r = 0; r < count; ++r) {
      PackRow(dtype, gguf + (g * kGroupRows + r) * row_bytes, cols, r, group);
    }
  }
}

void PackMatrix(DType dtype, size_t rows, size_t cols, const uint8_t* gguf, uint8_t* packed) {
  PackGroups(dtype, rows, cols, gguf, packed, 0, (rows + kGroupRows - 1) / kGroupRows);
}

}  // namespace efedllm
