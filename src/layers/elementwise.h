// The row-wise operations of a decoder layer. Rows are shared out over the team's threads.
#ifndef EFEDLLM_LAYERS_ELEMENTWISE_H_
#define EFEDLLM_LAYERS_ELEMENTWISE_H_

#include "absl/types/span.h"
#include "layers/compute.h"
#include "tensor/matrix.h"

namespace efedllm {

// y = x / sqrt(mean(x²) + epsilon) · weight, row by row. weight: [x.cols]. y: shape of x; may be x.
void RmsNorm(Compute& compute, ConstMatrixRef x, absl::Span<const float> weight, float epsilon,
             MatrixRef y);

// RmsNorm of each head by itself, in place. weight: [head_dim]; x.cols a multiple of it.
void HeadRmsNorm(Compute& compute, MatrixRef x, absl::Span<const float> weight, float epsilon);

// gate = silu(gate) · up. Same shapes.
void SiluMul(Compute& compute, MatrixRef gate, ConstMatrixRef up);

// gate = gelu(gate) · up, with the tanh approximation of gelu. Same shapes.
void GeluMul(Compute& compute, MatrixRef gate, ConstMatrixRef up);

// x = cap · tanh(x / cap). cap > 0.
void SoftCap(Compute& compute, MatrixRef x, float cap);

// x = x + y. Same shapes.
void Add(Compute& compute, MatrixRef x, ConstMatrixRef y);

// x = x + bias on every row. bias: [x.cols], or empty: none.
void AddBias(Compute& compute, MatrixRef x, absl::Span<const float> bias);

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_ELEMENTWISE_H_
