#include "tensor/blocks.h"

#include <cstring>

#include "tensor/half.h"

namespace efedllm {
namespace {

uint16_t LoadU16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

void DequantizeQ8_0(const uint8_t* block, float* out) {
  const float d = F16ToF32(LoadU16(block));
  for (int k = 0; k < 32; ++k) out[k] = static_cast<int8_t>(block[2 + k]) * d;
}

void DequantizeQ4_0(const uint8_t* block, float* out) {
  const float d = F16ToF32(LoadU16(block));
  for (int k = 0; k < 16; ++k) {
    out[k] = ((block[2 + k] & 15) - 8) * d;
    out[16 + k] = ((block[2 + k] >> 4) - 8) * d;
  }
}

void DequantizeQ6K(const uint8_t* block, float* out) {
  const float d = F16ToF32(LoadU16(block + kQ6KDOffset));
  uint8_t q[kQ6KValues];
  UnpackQ6K(block, q);
  for (size_t k = 0; k < kQ6KValues; ++k) {
    const int8_t scale = static_cast<int8_t>(block[kQ6KScaleOffset + k / 16]);
    out[k] = d * scale * static_cast<float>(q[k] - 32);
  }
}

}  // namespace

void UnpackQ6K(const uint8_t* block, uint8_t* out) {
  // Halves of 128 values, each of four quarters of 32: quarters 0 and 1 have their low nibbles in
  // the lower nibbles of 64 bytes, 2 and 3 in the upper ones; quarter q has its upper bits at
  // position 2q of 32 common bytes.
  for (int half = 0; half < 2; ++half, out += 128) {
    const uint8_t* low = block + half * 64;
    const uint8_t* high = block + kQ6KHighOffset + half * 32;
    for (int i = 0; i < 32; ++i) {
      out[i] = static_cast<uint8_t>((low[i] & 15) | (high[i] & 3) << 4);
      out[32 + i] = static_cast<uint8_t>((low[32 + i] & 15) | (high[i] >> 2 & 3) << 4);
      out[64 + i] = static_cast<uint8_t>(low[i] >> 4 | (high[i] >> 4 & 3) << 4);
      out[96 + i] = static_cast<uint8_t>(low[32 + i] >> 4 | high[i] >> 6 << 4);
    }
  }
}

void DequantizeRow(DType dtype, const uint8_t* row, size_t n, float* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, row, n * sizeof(float));
      return;
    case DType::kF16:
      for (size_t k = 0; k < n; ++k) out[k] = F16ToF32(LoadU16(row + 2 * k));
      return;
    case DType::kBF16:
      for (size_t k = 0; k < n; ++k) out[k] = Bf16ToF32(LoadU16(row + 2 * k));
      return;
    case DType::kQ8_0:
      for (size_t k = 0; k < n; k += 32, row += 34) DequantizeQ8_0(row, out + k);
      return;
    case DType::kQ4_0:
      for (size_t k = 0; k < n; k += 32, row += 18) DequantizeQ4_0(row, out + k);
      return;
    case DType::kQ6_K:
      for (size_t k = 0; k < n; k += kQ6KValues, row += 210) DequantizeQ6K(row, out + k);
      return;
  }
}

}  // namespace efedllm
