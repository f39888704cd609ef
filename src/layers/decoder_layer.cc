#include "layers/decoder_layer.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "layers/attention.h"
#include "layers/elementwise.h"
#include "layers/kernels/kernel_table.h"

namespace efedllm {

DecoderLayer::DecoderLayer(const LayerShape& shape, Rope rope, Compute& compute)
    : shape_(shape), rope_(std::move(rope)), compute_(compute), linear_(compute) {
  CHECK(rope_.dims() <= shape_.head_dim);
}

MatrixRef DecoderLayer::Shaped(std::vector<float>& buffer, size_t rows, size_t cols) {
  if (buffer.size() < rows * cols) buffer.resize(rows * cols);
  return {buffer.data(), rows, cols};
}

void DecoderLayer::BeginStep(absl::Span<const KvSpan> spans) {
  spans_.assign(spans.begin(), spans.end());
  const size_t dims = rope_.dims();
  size_t rows = 0;
  for (const KvSpan& span : spans) rows += span.tokens;
  const MatrixRef cos = Shaped(cos_, rows, dims), sin = Shaped(sin_, rows, dims);
  size_t row = 0;
  for (const KvSpan& span : spans) {
    for (uint32_t i = 0; i < span.tokens; ++i, ++row) {
      rope_.Angles(span.first_position + i, cos.row(row), sin.row(row));
    }
  }
}

void DecoderLayer::Rotate(MatrixRef x) const {
  const size_t dims = rope_.dims();
  for (size_t r = 0; r < x.rows; ++r) {
    compute_.kernels->rope(x.row(r), x.cols / shape_.head_dim, shape_.head_dim, dims,
                           cos_.data() + r * dims, sin_.data() + r * dims);
  }
}

void DecoderLayer::Run(const LayerWeights& weights, uint32_t layer, KvCache& kv, MatrixRef hidden) {
  const size_t rows = hidden.rows, kv_cols = size_t{shape_.kv_heads} * shape_.head_dim;
  const MatrixRef normed = Shaped(normed_, rows, shape_.d_model);
  const MatrixRef q = Shaped(q_, rows, size_t{shape_.heads} * shape_.head_dim);
  const MatrixRef k = Shaped(k_, rows, kv_cols), v = Shaped(v_, rows, kv_cols);
  const MatrixRef attended = Shaped(attended_, rows, q.cols);
  const MatrixRef projected = Shaped(projected_, rows, shape_.d_model);
  const MatrixRef gate = Shaped(gate_, rows, shape_.d_ffn), up = Shaped(up_, rows, shape_.d_ffn);

  RmsNorm(compute_, hidden, weights.attention_norm, shape_.norm_epsilon, normed);
  linear_.Run(normed, {{weights.query, q}, {weights.key, k}, {weights.value, v}});
  Rotate(q);
  Rotate(k);
  StoreKv(compute_, spans_, layer, k, v, kv);
  Attend(compute_, spans_, layer, q, kv, attended);
  linear_.Run(attended, {{weights.output, projected}});
  Add(compute_, hidden, projected);

  RmsNorm(compute_, hidden, weights.ffn_norm, shape_.norm_epsilon, normed);
  linear_.Run(normed, {{weights.gate, gate}, {weights.up, up}});
  SiluMul(compute_, gate, up);
  linear_.Run(gate, {{weights.down, projected}});
  Add(compute_, hidden, projected);
}

}  // namespace efedllm
