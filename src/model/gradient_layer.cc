#include "model/gradient_layer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "layers/elementwise.h"
#include "layers/kernels/kernel_table.h"
#include "model/ropes.h"

namespace efedllm {
namespace {

AttentionShape ShapeOf(const ModelConfig& config, uint32_t layer) {
  return {.heads = config.heads,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .scale = config.attention_scale,
          .soft_cap = config.attention_soft_cap,
          .window = config.HasWindow(layer) ? config.window : 0};
}

}  // namespace

LayerGradient::LayerGradient(const ModelFile& file, const ModelConfig& config, uint32_t layer,
                             const Rope& rope, LayerTensorMap tensors, Compute& compute)
    : config_(config),
      layer_(layer),
      rope_(rope),
      tensors_(std::move(tensors)),
      compute_(compute),
      linear_(compute),
      shape_(ShapeOf(config, layer)),
      feed_forward_(file, config, layer, tensors_, compute) {}

absl::StatusOr<std::unique_ptr<LayerGradient>> LayerGradient::Create(const ModelFile& file,
                                                                     const ModelConfig& config,
                                                                     uint32_t layer,
                                                                     const std::vector<Rope>& ropes,
                                                                     Compute& compute) {
  ASSIGN_OR_RETURN(LayerTensorMap tensors, LayerTensorMap::Load(config, file, layer, compute));
  std::unique_ptr<LayerGradient> gradient(new LayerGradient(
      file, config, layer, ropes[RopeOfLayer(config, layer)], std::move(tensors), compute));
  RETURN_IF_ERROR(gradient->LoadTransposed(file));
  return gradient;
}

absl::Status LayerGradient::LoadTransposed(const ModelFile& file) {
  const std::string layer = absl::StrCat("blk.", layer_, ".");
  const uint64_t q = uint64_t{config_.heads} * config_.head_dim;
  const uint64_t kv = uint64_t{config_.kv_heads} * config_.head_dim;
  std::vector<TensorRows> parts = {{layer + "attn_q.weight", 0, q},
                                   {layer + "attn_k.weight", 0, kv},
                                   {layer + "attn_v.weight", 0, kv}};
  if (config_.traits().fused) parts = {{layer + "attn_qkv.weight", 0, q + 2 * kv}};
  RETURN_IF_ERROR(qkv_.Load(file, parts, config_.d_model, *compute_.team));
  return output_.Load(file, {{layer + "attn_output.weight", 0, config_.d_model}}, q,
                      *compute_.team);
}

void LayerGradient::Turn(MatrixRef x, bool back) const {
  const auto rope = rope_.halves() ? compute_.kernels->rope_halves : compute_.kernels->rope;
  const size_t dims = rope_.dims();
  compute_.team->ParallelFor(x.rows, [&](size_t row) {
    std::vector<float> sin(sin_.begin() + static_cast<std::ptrdiff_t>(row * dims),
                           sin_.begin() + static_cast<std::ptrdiff_t>((row + 1) * dims));
    if (back) {
      for (float& s : sin) s = -s;
    }
    rope(x.row(row), x.cols / config_.head_dim, config_.head_dim, dims, cos_.data() + row * dims,
         sin.data());
  });
}

void LayerGradient::FinishHeads(const char* norm, ConstMatrixRef raw, MatrixRef x) const {
  std::copy_n(raw.data, raw.rows * raw.cols, x.data);
  const absl::Span<const float> weight = tensors_.Vector(norm);
  if (!weight.empty()) HeadRmsNorm(compute_, x, weight, config_.norm_epsilon);
  Turn(x, false);
}

void LayerGradient::Project() {
  const size_t rows = inputs_.rows, q = size_t{config_.heads} * config_.head_dim;
  const size_t kv = size_t{config_.kv_heads} * config_.head_dim;
  const bool fused = config_.traits().fused;
  const Projection query = tensors_.Rows(fused ? "attn_qkv" : "attn_q", 0, q);
  const Projection key = tensors_.Rows(fused ? "attn_qkv" : "attn_k", fused ? q : 0, kv);
  const Projection value = tensors_.Rows(fused ? "attn_qkv" : "attn_v", fused ? q + kv : 0, kv);
  for (Matrix* m : {&q_raw_, &q_}) *m = Matrix(rows, q);
  for (Matrix* m : {&k_raw_, &k_, &v_}) *m = Matrix(rows, kv);
  linear_.Run(normed_.ref(), {{query.w, q_raw_.ref()}, {key.w, k_raw_.ref()}, {value.w, v_.ref()}});
  AddBias(compute_, q_raw_.ref(), query.bias);
  AddBias(compute_, k_raw_.ref(), key.bias);
  AddBias(compute_, v_.ref(), value.bias);
  FinishHeads("attn_q_norm.weight", q_raw_.ref(), q_.ref());
  FinishHeads("attn_k_norm.weight", k_raw_.ref(), k_.ref());
}

// body(number of the sequence and kv head, offsets of its q and k, its rows).
template <class Body>
void LayerGradient::ForHeads(const Body& body) {
  std::vector<size_t> first_rows;
  size_t row = 0;
  for (const uint32_t length : lengths_) {
    first_rows.push_back(row);
    row += length;
  }
  const size_t group_cols = size_t{config_.heads} / config_.kv_heads * config_.head_dim;
  compute_.team->ParallelFor(lengths_.size() * config_.kv_heads, [&](size_t i) {
    const size_t sequence = i / config_.kv_heads, head = i % config_.kv_heads;
    const size_t q = first_rows[sequence] * q_.cols() + head * group_cols;
    const size_t kv = first_rows[sequence] * k_.cols() + head * config_.head_dim;
    body(i, q, kv,
         AttentionRows{.tokens = lengths_[sequence],
                       .q = q_.row(0) + q,
                       .k = k_.row(0) + kv,
                       .v = v_.row(0) + kv,
                       .q_stride = q_.cols(),
                       .kv_stride = k_.cols()});
  });
}

void LayerGradient::AttendAll() {
  attended_ = Matrix(inputs_.rows, q_.cols());
  probabilities_.assign(lengths_.size() * config_.kv_heads, {});
  ForHeads([&](size_t i, size_t q, size_t, const AttentionRows& rows) {
    probabilities_[i].resize(config_.heads / config_.kv_heads * rows.tokens * rows.tokens);
    AttentionForward(shape_, rows, probabilities_[i].data(), attended_.row(0) + q);
  });
}

ConstMatrixRef LayerGradient::Forward(absl::Span<const uint32_t> lengths, ConstMatrixRef inputs) {
  const size_t rows = inputs.rows, d = config_.d_model, dims = rope_.dims();
  lengths_.assign(lengths.begin(), lengths.end());
  inputs_ = inputs;
  cos_.resize(rows * dims);
  sin_.resize(rows * dims);
  size_t row = 0;
  for (const uint32_t length : lengths_) {
    for (uint32_t i = 0; i < length; ++i, ++row) {
      rope_.Angles(i, cos_.data() + row * dims, sin_.data() + row * dims);
    }
  }
  CHECK(row == rows);
  for (Matrix* m : {&normed_, &projected_, &middle_, &ffn_normed_, &ffn_out_, &out_}) {
    *m = Matrix(rows, d);
  }
  // What is added to the residual, which is normed first where there is a norm.
  const auto add = [&](const char* norm, ConstMatrixRef x, const Matrix& part, Matrix& sum) {
    Matrix added = part;
    const absl::Span<const float> weight = tensors_.Vector(norm);
    if (!weight.empty()) RmsNorm(compute_, part.ref(), weight, config_.norm_epsilon, added.ref());
    std::copy_n(x.data, rows * d, sum.row(0));
    Add(compute_, sum.ref(), added.ref());
  };
  RmsNorm(compute_, inputs, tensors_.Vector("attn_norm.weight"), config_.norm_epsilon,
          normed_.ref());
  Project();
  AttendAll();
  const Projection output = tensors_.Rows("attn_output", 0, d);
  linear_.Run(attended_.ref(), {{output.w, projected_.ref()}});
  AddBias(compute_, projected_.ref(), output.bias);
  add("post_attention_norm.weight", inputs, projected_, middle_);
  RmsNorm(compute_, middle_.ref(), tensors_.Vector("ffn_norm.weight"), config_.norm_epsilon,
          ffn_normed_.ref());
  feed_forward_.Forward(ffn_normed_.ref(), ffn_out_.ref());
  add("post_ffw_norm.weight", middle_.ref(), ffn_out_, out_);
  return out_.ref();
}

void LayerGradient::AddNormBackward(const char* norm, ConstMatrixRef x, ConstMatrixRef dy, bool add,
                                    MatrixRef dx) const {
  const absl::Span<const float> weight = tensors_.Vector(norm);
  compute_.team->ParallelFor(x.rows, [&](size_t row) {
    if (weight.empty()) {
      std::copy_n(dy.row(row), dy.cols, dx.row(row));
    } else {
      RmsNormBackward(x.row(row), weight.data(), x.cols, config_.norm_epsilon, dy.row(row), add,
                      dx.row(row));
    }
  });
}

void LayerGradient::BackHeads(const char* norm, ConstMatrixRef raw, MatrixRef dx) const {
  Turn(dx, true);
  const absl::Span<const float> weight = tensors_.Vector(norm);
  if (weight.empty()) return;
  compute_.team->ParallelFor(raw.rows, [&](size_t row) {
    for (size_t i = 0; i < raw.cols; i += weight.size()) {
      RmsNormBackward(raw.row(row) + i, weight.data(), weight.size(), config_.norm_epsilon,
                      dx.row(row) + i, false, dx.row(row) + i);
    }
  });
}

void LayerGradient::BackAttention(ConstMatrixRef gradient, MatrixRef dnormed) {
  const size_t rows = gradient.rows;
  Matrix dattended(rows, q_.cols()), dq(rows, q_.cols());
  Matrix dk(rows, k_.cols()), dv(rows, k_.cols());
  linear_.Run(gradient, {{output_.matrix(), dattended.ref()}});
  ForHeads([&](size_t i, size_t q, size_t kv, const AttentionRows& heads) {
    AttentionBackward(shape_, heads, probabilities_[i].data(),
                      {.dout = dattended.row(0) + q,
                       .dq = dq.row(0) + q,
                       .dk = dk.row(0) + kv,
                       .dv = dv.row(0) + kv});
  });
  BackHeads("attn_q_norm.weight", q_raw_.ref(), dq.ref());
  BackHeads("attn_k_norm.weight", k_raw_.ref(), dk.ref());
  Matrix dqkv(rows, dq.cols() + 2 * dk.cols());
  for (size_t row = 0; row < rows; ++row) {
    float* to = std::copy_n(dq.row(row), dq.cols(), dqkv.row(row));
    to = std::copy_n(dk.row(row), dk.cols(), to);
    std::copy_n(dv.row(row), dv.cols(), to);
  }
  linear_.Run(dqkv.ref(), {{qkv_.matrix(), dnormed}});
}

absl::Status LayerGradient::Backward(absl::Span<const MatrixRef> gradients) {
  const size_t rows = inputs_.rows, d = config_.d_model;
  std::vector<Matrix> dout, dnormed;
  std::vector<ConstMatrixRef> dout_refs;
  std::vector<MatrixRef> dnormed_refs;
  for (const MatrixRef gradient : gradients) {
    CHECK(gradient.rows == rows && gradient.cols == d);
    dout.emplace_back(rows, d);
    dnormed.emplace_back(rows, d);
    AddNormBackward("post_ffw_norm.weight", ffn_out_.ref(), gradient, false, dout.back().ref());
  }
  for (size_t i = 0; i < gradients.size(); ++i) {
    dout_refs.push_back(dout[i].ref());
    dnormed_refs.push_back(dnormed[i].ref());
  }
  RETURN_IF_ERROR(feed_forward_.Backward(dout_refs, dnormed_refs));
  for (size_t i = 0; i < gradients.size(); ++i) {
    AddNormBackward("ffn_norm.weight", middle_.ref(), dnormed[i].ref(), true, gradients[i]);
    AddNormBackward("post_attention_norm.weight", projected_.ref(), gradients[i], false,
                    dout[i].ref());
    BackAttention(dout[i].ref(), dnormed[i].ref());
    AddNormBackward("attn_norm.weight", inputs_, dnormed[i].ref(), true, gradients[i]);
  }
  return absl::OkStatus();
}

}  // namespace efedllm
