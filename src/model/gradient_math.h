// The parts of a decoder layer's backward pass that are not matrix products. Plain loops in f32.
#ifndef EFEDLLM_MODEL_GRADIENT_MATH_H_
#define EFEDLLM_MODEL_GRADIENT_MATH_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "cluster/architecture.h"
#include "tensor/matrix.h"

namespace efedllm {

// One row of y = x / sqrt(mean(x²) + epsilon) · weight: adds to dx what dy, all [n], means for x.
// dx may be dy only if add is false; then dx is overwritten.
void RmsNormBackward(const float* x, const float* weight, size_t n, float epsilon, const float* dy,
                     bool add, float* dx);

// gated = act(gate) · up, [n]: dgate and dup from dgated. dgate may be gate, dup may be up.
void GateBackward(Activation activation, const float* gate, const float* up, const float* dgated,
                  size_t n, float* dgate, float* dup);

struct AttentionShape {
  size_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;
  float soft_cap = 0;   // 0: none
  uint32_t window = 0;  // 0: all
};

// One kv head and its query heads over one sequence of n tokens. Rows have strides, so that heads
// may lie side by side. Causal. Borrowed.
struct AttentionRows {
  size_t tokens = 0;
  const float *q = nullptr, *k = nullptr, *v = nullptr;  // the first query head's, the kv head's
  size_t q_stride = 0, kv_stride = 0;
};
struct AttentionGradients {
  const float* dout = nullptr;                        // as q
  float *dq = nullptr, *dk = nullptr, *dv = nullptr;  // as q, k, v; overwritten
};
// probabilities: [heads / kv_heads][tokens][tokens], which Backward takes as Forward left them.
// out: as q.
void AttentionForward(const AttentionShape& shape, const AttentionRows& rows, float* probabilities,
                      float* out);
void AttentionBackward(const AttentionShape& shape, const AttentionRows& rows,
                       const float* probabilities, const AttentionGradients& gradients);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_GRADIENT_MATH_H_
