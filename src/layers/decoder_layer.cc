#include "layers/decoder_layer.h"

#include <utility>

#include "common/check.h"
#include "layers/attention.h"
#include "layers/elementwise.h"
#include "layers/kernels/kernel_table.h"
#include "layers/scratch.h"

namespace efedllm {

DecoderLayer::DecoderLayer(const LayerShape& shape, std::vector<Rope> ropes, Compute& compute)
    : shape_(shape),
      compute_(compute),
      linear_(compute),
      feed_forward_(shape.feed_forward, compute) {
  for (Rope& rope : ropes) {
    CHECK(rope.dims() <= shape_.head_dim);
    turnings_.push_back({std::move(rope), {}, {}});
  }
}

void DecoderLayer::BeginStep(absl::Span<const KvSpan> spans) {
  spans_.assign(spans.begin(), spans.end());
  size_t rows = 0;
  for (const KvSpan& span : spans) rows += span.tokens;
  for (Turning& turning : turnings_) {
    const MatrixRef cos = Shaped(turning.cos, rows, turning.rope.dims());
    const MatrixRef sin = Shaped(turning.sin, rows, turning.rope.dims());
    size_t row = 0;
    for (const KvSpan& span : spans) {
      for (uint32_t i = 0; i < span.tokens; ++i, ++row) {
        turning.rope.Angles(span.first_position + i, cos.row(row), sin.row(row));
      }
    }
  }
}

void DecoderLayer::Rotate(const Turning& turning, MatrixRef x) const {
  const size_t dims = turning.rope.dims();
  const auto rope = turning.rope.halves() ? compute_.kernels->rope_halves : compute_.kernels->rope;
  for (size_t r = 0; r < x.rows; ++r) {
    rope(x.row(r), x.cols / shape_.head_dim, shape_.head_dim, dims, turning.cos.data() + r * dims,
         turning.sin.data() + r * dims);
  }
}

void DecoderLayer::FinishHeads(const Projection& projection, absl::Span<const float> norm,
                               const Turning& turning, MatrixRef x) {
  AddBias(compute_, x, projection.bias);
  if (!norm.empty()) HeadRmsNorm(compute_, x, norm, shape_.norm_epsilon);
  Rotate(turning, x);
}

void DecoderLayer::AddToResidual(absl::Span<const float> norm, MatrixRef x, MatrixRef hidden) {
  if (!norm.empty()) RmsNorm(compute_, x, norm, shape_.norm_epsilon, x);
  Add(compute_, hidden, x);
}

void DecoderLayer::RunAttention(const LayerWeights& weights, uint32_t layer, KvCache& kv,
                                MatrixRef hidden) {
  const size_t rows = hidden.rows, kv_cols = size_t{shape_.kv_heads} * shape_.head_dim;
  const MatrixRef normed = Shaped(normed_, rows, shape_.d_model);
  const MatrixRef q = Shaped(q_, rows, size_t{shape_.heads} * shape_.head_dim);
  const MatrixRef k = Shaped(k_, rows, kv_cols), v = Shaped(v_, rows, kv_cols);
  const MatrixRef attended = Shaped(attended_, rows, q.cols);
  const MatrixRef projected = Shaped(projected_, rows, shape_.d_model);
  const Turning& turning = turnings_[weights.rope];

  RmsNorm(compute_, hidden, weights.attention_norm, shape_.norm_epsilon, normed);
  linear_.Project(normed, {{weights.query, q}, {weights.key, k}, {weights.value, v}});
  FinishHeads(weights.query, weights.query_norm, turning, q);
  FinishHeads(weights.key, weights.key_norm, turning, k);
  AddBias(compute_, v, weights.value.bias);
  StoreKv(compute_, spans_, layer, k, v, kv);
  Attend(compute_, spans_, layer,
         {.scale = shape_.attention_scale,
          .window = weights.window,
          .soft_cap = shape_.attention_soft_cap},
         q, kv, attended);
  linear_.Project(attended, {{weights.output, projected}});
  AddBias(compute_, projected, weights.output.bias);
  AddToResidual(weights.post_attention_norm, projected, hidden);
}

void DecoderLayer::RunFeedForward(const LayerWeights& weights, MatrixRef hidden) {
  const MatrixRef normed = Shaped(normed_, hidden.rows, shape_.d_model);
  const MatrixRef projected = Shaped(projected_, hidden.rows, shape_.d_model);
  RmsNorm(compute_, hidden, weights.ffn_norm, shape_.norm_epsilon, normed);
  feed_forward_.Run(weights.feed_forward, normed, projected);
  AddToResidual(weights.post_ffn_norm, projected, hidden);
}

void DecoderLayer::Run(const LayerWeights& weights, uint32_t layer, KvCache& kv, MatrixRef hidden) {
  RunAttention(weights, layer, kv, hidden);
  RunFeedForward(weights, hidden);
}

}  // namespace efedllm
