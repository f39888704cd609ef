// GGUF's block formats: what a block's bytes mean. All numbers little-endian.
//
//   32 values:  Q8_0 d q[32] · Q4_0, IQ4_NL d q[16] · Q4_1 d m q[16] · Q5_0 d h[4] q[16] ·
//               Q5_1 d m h[4] q[16] · MXFP4 d q[16]
//   256 values: Q2_K scales[16] q[64] d m · Q3_K h[32] q[64] scales[12] d · Q4_K d m scales[12]
//               q[128] · Q5_K d m scales[12] h[32] q[128] · Q6_K q[128] h[64] scales[16] d ·
//               IQ4_XS d scales[6] q[128]
//
// q has the lower bits of the codes, h the upper ones; tensor/quant_format.h says what codes mean.
#ifndef EFEDLLM_TENSOR_BLOCKS_H_
#define EFEDLLM_TENSOR_BLOCKS_H_

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"
#include "tensor/quant_format.h"

namespace efedllm {

inline constexpr size_t kMaxBlockValues = 256;

// A block without d and m.
struct UnpackedBlock {
  uint8_t codes[kMaxBlockValues];  // Q8_0: its number + 128
  int8_t scales[kMaxBlockValues / 16];
  int8_t mins[kMaxBlockValues / 16];  // of K-quants: 0 or less
};

// The facts of a block format. dtype: not a float type.
const QuantFormat& QuantFormatOf(DType dtype);

// Fills as much of *out as the format's block has.
void UnpackBlock(const QuantFormat& format, const uint8_t* block, UnpackedBlock* out);

// out[0, n): the floats that a row of n values means, bit for bit as ggml's reference has them.
// row: RowBytes(dtype, n) bytes, which must exist (n a multiple of the block).
void DequantizeRow(DType dtype, const uint8_t* row, size_t n, float* out);

}  // namespace efedllm

#endif  // EFEDLLM_TENSOR_BLOCKS_H_
