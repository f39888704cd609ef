#include "layers/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"
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

// kQuads of four bytes per block, after two bytes of d: Q8_0 and Q4_0.
template <size_t kQuads>
void PackSimpleBlocks(const uint8_t* src, size_t cols, size_t r, uint8_t* group) {
  const size_t blocks = cols / 32;
  uint8_t* d = group + blocks * kQuads * kRows * 4;
  for (size_t b = 0; b < blocks; ++b, src += 2 + kQuads * 4) {
    std::memcpy(d + (b * kRows + r) * 2, src, 2);
    for (size_t g = 0; g < kQuads; ++g) {
      std::memcpy(group + ((b * kQuads + g) * kRows + r) * 4, src + 2 + g * 4, 4);
    }
  }
}

void PackQ6K(const uint8_t* src, size_t cols, size_t r, uint8_t* group) {
  const size_t blocks = cols / 32;
  uint8_t* low = group;
  uint8_t* high = low + blocks * 16 * kRows;
  uint8_t* scales = high + blocks * 8 * kRows;
  uint8_t* d = scales + blocks * 2 * kRows;
  uint8_t values[kQ6KValues];
  for (size_t b = 0; b < blocks; ++b) {
    const uint8_t* block = src + b / 8 * BlockBytes(DType::kQ6_K);
    if (b % 8 == 0) UnpackQ6K(block, values);
    const uint8_t* q = values + b % 8 * 32;
    uint8_t low_bytes[16], high_bytes[8] = {};
    for (size_t i = 0; i < 16; ++i) {
      const uint8_t below = q[i], above = q[16 + i];
      low_bytes[i] = static_cast<uint8_t>((below & 15) | above << 4);
      high_bytes[i / 8 * 4 + i % 4] |=
          static_cast<uint8_t>((below >> 4 | above >> 4 << 2) << (i / 4 % 2 * 4));
    }
    for (size_t g = 0; g < 4; ++g) {
      std::memcpy(low + ((b * 4 + g) * kRows + r) * 4, low_bytes + g * 4, 4);
    }
    for (size_t h = 0; h < 2; ++h) {
      std::memcpy(high + ((b * 2 + h) * kRows + r) * 4, high_bytes + h * 4, 4);
    }
    std::memcpy(scales + (b * kRows + r) * 2, block + kQ6KScaleOffset + b % 8 * 2, 2);
    if (b % 8 == 0) std::memcpy(d + (b / 8 * kRows + r) * 2, block + kQ6KDOffset, 2);
  }
}

void PackRow(DType dtype, const uint8_t* src, size_t cols, size_t r, uint8_t* group) {
  switch (dtype) {
    case DType::kF32:
      return PackFloats<4>(src, cols, r, group);
    case DType::kF16:
    case DType::kBF16:
      return PackFloats<2>(src, cols, r, group);
    case DType::kQ8_0:
      return PackSimpleBlocks<8>(src, cols, r, group);
    case DType::kQ4_0:
      return PackSimpleBlocks<4>(src, cols, r, group);
    case DType::kQ6_K:
      return PackQ6K(src, cols, r, group);
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
