// From floats to the block formats (tensor/blocks.h says what their bytes mean). For tools that
// write models; the token path only reads them.
#ifndef EFEDLLM_TENSOR_QUANTIZE_H_
#define EFEDLLM_TENSOR_QUANTIZE_H_

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace efedllm {

// Whether QuantizeRow knows the type: F32, F16, BF16, Q8_0, Q6_K, Q5_0, Q4_K, Q4_0.
bool CanQuantize(DType dtype);

// x: [n] finite values, n a multiple of the block. importance: [n], what the squared error of each
// value weighs, none negative; null: all the same. Scales and mins are sought that make the
// weighted squared error of a block small (Q8_0: those of its largest value, as ggml has them).
// out: RowBytes(dtype, n) bytes. Values beyond a scale's f16 range become the largest there is.
void QuantizeRow(DType dtype, const float* x, size_t n, const float* importance, uint8_t* out);

}  // namespace efedllm

#endif  // EFEDLLM_TENSOR_QUANTIZE_H_
