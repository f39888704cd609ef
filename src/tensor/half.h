// Exact conversions between f32 and the smaller float formats.
#ifndef EFEDLLM_TENSOR_HALF_H_
#define EFEDLLM_TENSOR_HALF_H_

#include <cstdint>

namespace efedllm {

// IEEE binary16. Exact; subnormals, infinities and NaN included.
float F16ToF32(uint16_t h);
// Rounds to nearest, ties to even; overflow gives infinity, NaN stays NaN.
uint16_t F32ToF16(float f);

// bfloat16: the upper half of an f32.
float Bf16ToF32(uint16_t h);
// Rounds to nearest, ties to even; NaN stays NaN.
uint16_t F32ToBf16(float f);

// Half of 2^(e - 127), an exponent of 8 bits as MXFP4 scales have. Exact; never 0, NaN or infinite.
float HalfE8m0ToF32(uint8_t e);

}  // namespace efedllm

#endif  // EFEDLLM_TENSOR_HALF_H_
