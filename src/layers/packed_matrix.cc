#include "layers/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/check.h"
#include "layers/kernels/group_layout.h"
#include "tensor/blocks.h"

namespace efedllm {
namespace {

constexpr uint64_t kRows = kGroupRows;

// The rows of one group as GGUF has them, and where they go: a zeroed group. Whoever packs them
// takes a block of all rows after the other, so that what it writes stays in the first-level cache.
struct Group {
  const uint8_t* rows;
  size_t row_bytes;
  size_t count;  // of rows
  size_t cols;
  uint8_t* packed;
};

template <size_t kBytes>
void PackFloats(const Group& group) {
  constexpr size_t kValues = 32;
  for (size_t first = 0; first < group.cols; first += kValues) {
    const size_t last = std::min(first + kValues, group.cols);
    for (size_t r = 0; r < group.count; ++r) {
      const uint8_t* src = group.rows + r * group.row_bytes;
      for (size_t k = first; k < last; ++k) {
        std::memcpy(group.packed + (k * kRows + r) * kBytes, src + k * kBytes, kBytes);
      }
    }
  }
}

// All of these put a block of one row into place r.

template <class T>
T Load(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// The bits [at, at + bits) of each byte of v.
template <class T>
T Bits(T v, int at, int bits) {
  return v >> at & static_cast<T>(~T{0} / 255 * ((1u << bits) - 1));
}

// Quad g of a row's block b, to [b][count][r].
void PutQuad(uint32_t quad, size_t count, size_t b, size_t g, size_t r, uint8_t* plane) {
  std::memcpy(plane + ((b * count + g) * kRows + r) * 4, &quad, 4);
}

// Four codes at a time; quads 4 to 7 are the values above.
template <QuantFormat kFormat>
void PutCodes(const GroupLayout& at, const uint8_t* codes, size_t b, size_t r, uint8_t* group) {
  constexpr QuantFormat f = kFormat;
  uint32_t quads[8];
  std::memcpy(quads, codes, sizeof quads);
  const auto fold = [&](size_t g, int from, int bits) {
    return Bits(quads[g], from, bits) | Bits(quads[g + 4], from, bits) << bits;
  };
  if constexpr (HasNibbles(f)) {
    for (size_t g = 0; g < 4; ++g) PutQuad(fold(g, 0, 4), 4, b, g, r, group);
  }
  if constexpr (HasTwoBits(f)) {
    for (size_t g = 0; g < 2; ++g) {
      const uint32_t two = fold(2 * g, TwoBitsAt(f), 2) | fold(2 * g + 1, TwoBitsAt(f), 2) << 4;
      PutQuad(two, 2, b, g, r, group + at.pairs);
    }
  }
  if constexpr (HasOneBit(f)) {
    uint32_t bits = 0;
    for (size_t g = 0; g < 8; ++g) bits |= Bits(quads[g], OneBitAt(f), 1) << g;
    PutQuad(bits, 1, b, 0, r, group + at.bits);
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

// Block i of a row, src, into place r.
template <QuantFormat kFormat>
void PackBlock(const GroupLayout& at, const uint8_t* src, size_t i, size_t r, uint8_t* group) {
  constexpr QuantFormat f = kFormat;
  constexpr size_t kDBytes = HasE8m0(f) ? 1 : 2;
  // Blocks of 32 whole bytes or nibbles already have them in quads, behind d and m.
  if constexpr (f.scales == SubScales::kNone && f.bits % 4 == 0) {
    const uint8_t* quads = src + (HasM(f) ? 4 : kDBytes);
    for (size_t g = 0; g < f.bits; ++g)
      PutQuad(Load<uint32_t>(quads + 4 * g), f.bits, i, g, r, group);
  } else {
    UnpackedBlock block;
    UnpackBlock(f, src, &block);
    for (size_t j = 0; j < BlocksPerD(f); ++j) {
      const size_t b = i * BlocksPerD(f) + j;
      PutCodes<f>(at, block.codes + j * 32, b, r, group);
      PutScales(f.scales, at, block.scales + j * 2, block.mins + j * 2, b, r, group);
    }
  }
  uint8_t* d = group + at.d + i * DBytes(f);
  std::memcpy(d + r * kDBytes, src + f.d_offset, kDBytes);
  if (HasM(f)) std::memcpy(d + (kRows + r) * 2, src + f.m_offset, 2);
}

template <QuantFormat kFormat>
void PackQuants(const Group& group) {
  constexpr QuantFormat f = kFormat;
  const GroupLayout at = LayoutOf(f, group.cols / 32);
  const size_t bytes = BlockBytes(f.dtype);
  for (size_t i = 0; i < group.cols / 32 / BlocksPerD(f); ++i) {
    for (size_t r = 0; r < group.count; ++r) {
      PackBlock<f>(at, group.rows + r * group.row_bytes + i * bytes, i, r, group.packed);
    }
  }
}

template <size_t... kIndex>
void PackQuants(DType dtype, const Group& group, std::index_sequence<kIndex...>) {
  ((kQuantFormats[kIndex].dtype == dtype ? PackQuants<kQuantFormats[kIndex]>(group) : void()), ...);
}

void PackGroup(DType dtype, const Group& group) {
  switch (dtype) {
    case DType::kF32:
      return PackFloats<4>(group);
    case DType::kF16:
    case DType::kBF16:
      return PackFloats<2>(group);
    default:
      return PackQuants(dtype, group, std::make_index_sequence<kQuantFormatCount>());
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
    PackGroup(dtype, {.rows = gguf + g * kGroupRows * row_bytes,
                      .row_bytes = row_bytes,
                      .count = std::min(kGroupRows, rows - g * kGroupRows),
                      .cols = cols,
                      .packed = group});
  }
}

void PackMatrix(DType dtype, size_t rows, size_t cols, const uint8_t* gguf, uint8_t* packed) {
  PackGroups(dtype, rows, cols, gguf, packed, 0, (rows + kGroupRows - 1) / kGroupRows);
}

}  // namespace efedllm
