// GGUF's block formats: what a block's bytes mean. All numbers little-endian, d is IEEE f16.
//
//   Q8_0  32 values, 34 bytes: d, int8 q[32]; value k = q[k]·d
//   Q4_0  32 values, 18 bytes: d, 16 bytes; value k = (low nibble of byte k - 8)·d for k < 16,
//         value 16 + k from the high nibble
//   Q6_K  256 values, 210 bytes: low nibbles ql[128], upper two bits qh[64], int8 scale[16] (one
//         for 16 values), d; value = (d·scale)·(q - 32)
#ifndef EFEDLLM_TENSOR_BLOCKS_H_
#define EFEDLLM_TENSOR_BLOCKS_H_

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace efedllm {

inline constexpr size_t kQ6KValues = 256;
// Byte offsets in a Q6_K block.
inline constexpr size_t kQ6KHighOffset = 128;
inline constexpr size_t kQ6KScaleOffset = 192;
inline constexpr size_t kQ6KDOffset = 208;

// The 6-bit numbers (0 to 63) of a Q6_K block. out: [256].
void UnpackQ6K(const uint8_t* block, uint8_t* out);

// out[0, n): the floats that a row of n values means, bit for bit as ggml's reference has them.
// row: RowBytes(dtype, n) bytes, which must exist (n a multiple of the block).
void DequantizeRow(DType dtype, const uint8_t* row, size_t n, float* out);

}  // namespace efedllm

#endif  // EFEDLLM_TENSOR_BLOCKS_H_
