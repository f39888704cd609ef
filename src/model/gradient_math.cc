#include "model/gradient_math.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace efedllm {
namespace {

constexpr size_t kLanes = 8;  // partial sums, which compilers make vectors of

float Dot(const float* a, const float* b, size_t n) {
  float sums[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) sums[j] += a[i + j] * b[i + j];
  }
  float sum = 0;
  for (; i < n; ++i) sum += a[i] * b[i];
  for (const float part : sums) sum += part;
  return sum;
}

void AddScaled(const float* x, float scale, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] += x[i] * scale;
}

// act(x) and its derivative.
struct Activated {
  float value, slope;
};

Activated Silu(float x) {
  const float sigmoid = 1 / (1 + std::exp(-x));
  return {x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))};
}

Activated Gelu(float x) {
  constexpr float kRoot = 0.7978845608028654f, kCubic = 0.044715f;  // sqrt(2 / pi)
  const float t = std::tanh(kRoot * (x + kCubic * x * x * x));
  const float inner = kRoot * (1 + 3 * kCubic * x * x);
  return {0.5f * x * (1 + t), 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * inner};
}

// The first position that a query at `position` sees.
size_t FirstSeen(const AttentionShape& shape, size_t position) {
  const size_t end = position + 1;
  return shape.window != 0 && end > shape.window ? end - shape.window : 0;
}

float SoftCapped(float score, float cap) { return cap == 0 ? score : cap * std::tanh(score / cap); }

}  // namespace

void RmsNormBackward(const float* x, const float* weight, size_t n, float epsilon, const float* dy,
                     bool add, float* dx) {
  const float mean = Dot(x, x, n) / static_cast<float>(n);
  const float inverse = 1 / std::sqrt(mean + epsilon);
  float along = 0;
  for (size_t i = 0; i < n; ++i) along += x[i] * weight[i] * dy[i];
  const float pull = along * inverse * inverse * inverse / static_cast<float>(n);
  for (size_t i = 0; i < n; ++i) {
    const float slope = weight[i] * dy[i] * inverse - x[i] * pull;
    dx[i] = add ? dx[i] + slope : slope;
  }
}

void GateBackward(Activation activation, const float* gate, const float* up, const float* dgated,
                  size_t n, float* dgate, float* dup) {
  for (size_t i = 0; i < n; ++i) {
    const Activated a = activation == Activation::kGelu ? Gelu(gate[i]) : Silu(gate[i]);
    const float raised = up[i], d = dgated[i];
    dgate[i] = d * raised * a.slope;
    dup[i] = d * a.value;
  }
}

void AttentionForward(const AttentionShape& shape, const AttentionRows& rows, float* probabilities,
                      float* out) {
  const size_t n = rows.tokens, dims = shape.head_dim;
  for (size_t head = 0; head < shape.heads / shape.kv_heads; ++head) {
    for (size_t i = 0; i < n; ++i) {
      const float* q = rows.q + i * rows.q_stride + head * dims;
      float* p = probabilities + (head * n + i) * n;
      const size_t first = FirstSeen(shape, i);
      float largest = -INFINITY;
      for (size_t j = first; j <= i; ++j) {
        p[j] = SoftCapped(Dot(q, rows.k + j * rows.kv_stride, dims) * shape.scale, shape.soft_cap);
        largest = std::max(largest, p[j]);
      }
      float sum = 0;
      for (size_t j = first; j <= i; ++j) sum += p[j] = std::exp(p[j] - largest);
      float* to = out + i * rows.q_stride + head * dims;
      std::fill_n(to, dims, 0.0f);
      for (size_t j = first; j <= i; ++j) {
        p[j] /= sum;
        AddScaled(rows.v + j * rows.kv_stride, p[j], dims, to);
      }
    }
  }
}

void AttentionBackward(const AttentionShape& shape, const AttentionRows& rows,
                       const float* probabilities, const AttentionGradients& gradients) {
  const size_t n = rows.tokens, dims = shape.head_dim;
  for (size_t j = 0; j < n; ++j) {
    std::fill_n(gradients.dk + j * rows.kv_stride, dims, 0.0f);
    std::fill_n(gradients.dv + j * rows.kv_stride, dims, 0.0f);
  }
  std::vector<float> dp(n);
  for (size_t head = 0; head < shape.heads / shape.kv_heads; ++head) {
    for (size_t i = 0; i < n; ++i) {
      const float* q = rows.q + i * rows.q_stride + head * dims;
      const float* dout = gradients.dout + i * rows.q_stride + head * dims;
      const float* p = probabilities + (head * n + i) * n;
      float* dq = gradients.dq + i * rows.q_stride + head * dims;
      std::fill_n(dq, dims, 0.0f);
      const size_t first = FirstSeen(shape, i);
      float mean = 0;
      for (size_t j = first; j <= i; ++j) {
        dp[j] = Dot(dout, rows.v + j * rows.kv_stride, dims);
        mean += p[j] * dp[j];
      }
      for (size_t j = first; j <= i; ++j) {
        const float* k = rows.k + j * rows.kv_stride;
        float dscore = p[j] * (dp[j] - mean) * shape.scale;
        if (shape.soft_cap != 0) {
          const float t = std::tanh(Dot(q, k, dims) * shape.scale / shape.soft_cap);
          dscore *= 1 - t * t;
        }
        AddScaled(k, dscore, dims, dq);
        AddScaled(q, dscore, dims, gradients.dk + j * rows.kv_stride);
        AddScaled(dout, p[j], dims, gradients.dv + j * rows.kv_stride);
      }
    }
  }
}

}  // namespace efedllm
