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

// gate = silu(gate) · up. Same shapes.
void SiluMul(Compute& compute, MatrixRef gate, ConstMatrixRef up);

// x = x + y. Same shapes.
void Add(Compute& compute, MatrixRef x, ConstMatrixRef y);

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_ELEMENTWISE_H_
