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
  for (size_t k = 0; k < kQ6KValues; ++k) {
    const int8_t scale = static_cast<int8_t>(block[kQ6KScaleOffset + k / 16]);
    out[k] = d * scale * static_cast<float>(Q6KValue(block, k) - 32);
  }
}

}  // namespace

uint8_t Q6KValue(const uint8_t* block, size_t k) {
  // Halves of 128 values; in a half, quarter q (32 values) has its low nibbles in bytes
  // 32·(q mod 2) on, lower nibble for q < 2, and its upper bits at shift 2q of 32 common bytes.
  const size_t half = k / 128, quarter = k % 128 / 32, i = k % 32;
  const uint8_t low = block[half * 64 + quarter % 2 * 32 + i];
  const uint8_t high = block[kQ6KHighOffset + half * 32 + i];
  return static_cast<uint8_t>((quarter < 2 ? low & 15 : low >> 4) |
                              (((high >> (2 * quarter)) & 3) << 4));
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
