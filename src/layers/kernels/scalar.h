// The definitions of the kernels other than matrix products (scalar.cc), as docs/numerics.md writes
// them down.
#ifndef EFEDLLM_LAYERS_KERNELS_SCALAR_H_
#define EFEDLLM_LAYERS_KERNELS_SCALAR_H_

#include "layers/kernels/kernel_table.h"

namespace efedllm::scalar {

float Exp(float x);
float Tanh(float x);
// Eight partial sums to one.
float Tree(const float* s);

void Quantize(const float* x, size_t blocks, QuantBlock* out);
void RmsNorm(const float* x, const float* weight, size_t n, float epsilon, float* y);
void Rope(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos, const float* sin);
void RopeHalves(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos,
                const float* sin);
void Attend(const AttendArgs& a);
void ToF16(const float* x, size_t n, uint16_t* out);
void SiluMul(float* gate, const float* up, size_t n);
void GeluMul(float* gate, const float* up, size_t n);
void SoftCap(float* x, size_t n, float cap);
void Add(float* x, const float* y, size_t n);
void AddScaled(float* y, const float* x, size_t n, float scale);
void ExpRow(const float* x, size_t n, float* y);

}  // namespace efedllm::scalar

#endif  // EFEDLLM_LAYERS_KERNELS_SCALAR_H_
