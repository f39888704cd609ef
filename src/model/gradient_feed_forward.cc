#include "model/gradient_feed_forward.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "layers/elementwise.h"
#include "layers/kernels/kernel_table.h"
#include "model/gradient_math.h"

namespace efedllm {
namespace {

Matrix Gather(ConstMatrixRef x, const std::vector<uint32_t>& rows) {
  Matrix gathered(rows.size(), x.cols);
  for (size_t i = 0; i < rows.size(); ++i) std::copy_n(x.row(rows[i]), x.cols, gathered.row(i));
  return gathered;
}

float Dot(const float* a, const float* b, size_t n) {
  return std::inner_product(a, a + n, b, 0.0f);
}

}  // namespace

FeedForwardGradient::FeedForwardGradient(const ModelFile& file, const ModelConfig& config,
                                         uint32_t layer, const LayerTensorMap& tensors,
                                         Compute& compute)
    : file_(file),
      config_(config),
      layer_(layer),
      tensors_(tensors),
      compute_(compute),
      linear_(compute),
      experts_(std::max<uint32_t>(1, config.experts)) {}

// The experts of the largest logits, the first of equal ones, as FeedForward chooses them.
void FeedForwardGradient::Route(ConstMatrixRef x) {
  shares_ = Matrix(x.rows, used());
  chosen_.assign(x.rows * used(), 0);
  if (!routed()) {
    std::fill_n(shares_.row(0), x.rows, 1.0f);
    return;
  }
  const Projection router = tensors_.Rows("ffn_gate_inp", 0, config_.experts);
  Matrix logits(x.rows, config_.experts);
  linear_.Run(x, {{router.w, logits.ref()}});
  AddBias(compute_, logits.ref(), router.bias);
  std::vector<uint32_t> order(config_.experts);
  for (size_t row = 0; row < x.rows; ++row) {
    const float* logit = logits.row(row);
    std::iota(order.begin(), order.end(), 0u);
    std::partial_sort(order.begin(), order.begin() + config_.experts_used, order.end(),
                      [logit](uint32_t a, uint32_t b) {
                        return logit[a] != logit[b] ? logit[a] > logit[b] : a < b;
                      });
    float sum = 0;
    for (size_t i = 0; i < used(); ++i) {
      chosen_[row * used() + i] = order[i];
      sum += shares_.row(row)[i] = std::exp(logit[order[i]] - logit[order[0]]);
    }
    for (size_t i = 0; i < used(); ++i) shares_.row(row)[i] /= sum;
  }
}

void FeedForwardGradient::RunExpert(uint32_t number, ConstMatrixRef x) {
  Expert& expert = experts_[number];
  const size_t rows = expert.rows.size(), ffn = config_.d_ffn, d = config_.d_model;
  const Matrix gathered = Gather(x, expert.rows);
  expert.gate = Matrix(rows, ffn);
  expert.up = Matrix(rows, ffn);
  expert.out = Matrix(rows, d);
  const auto projection = [&](const char* dense, const char* of_experts, size_t first, size_t n) {
    return routed() ? tensors_.Rows(of_experts, number * n, n) : tensors_.Rows(dense, first, n);
  };
  const bool fused = config_.traits().fused && !routed();
  const Projection gate = projection(fused ? "ffn_up" : "ffn_gate", "ffn_gate_exps", 0, ffn);
  const Projection up = projection("ffn_up", "ffn_up_exps", fused ? ffn : 0, ffn);
  const Projection down = projection("ffn_down", "ffn_down_exps", 0, d);
  linear_.Run(gathered.ref(), {{gate.w, expert.gate.ref()}, {up.w, expert.up.ref()}});
  AddBias(compute_, expert.gate.ref(), gate.bias);
  AddBias(compute_, expert.up.ref(), up.bias);
  Matrix gated = expert.gate;
  (config_.traits().activation == Activation::kGelu ? GeluMul : SiluMul)(compute_, gated.ref(),
                                                                         expert.up.ref());
  linear_.Run(gated.ref(), {{down.w, expert.out.ref()}});
  AddBias(compute_, expert.out.ref(), down.bias);
}

void FeedForwardGradient::Forward(ConstMatrixRef x, MatrixRef out) {
  Route(x);
  for (Expert& expert : experts_) expert = Expert();
  for (uint32_t i = 0; i < chosen_.size(); ++i) {
    Expert& expert = experts_[chosen_[i]];
    expert.rows.push_back(static_cast<uint32_t>(i / used()));
    expert.shares.push_back(shares_.row(0)[i]);
    expert.choices.push_back(i);
  }
  std::fill_n(out.data, out.rows * out.cols, 0.0f);
  for (uint32_t number = 0; number < experts_.size(); ++number) {
    Expert& expert = experts_[number];
    if (expert.rows.empty()) continue;
    RunExpert(number, x);
    for (size_t i = 0; i < expert.rows.size(); ++i) {
      compute_.kernels->add_scaled(out.row(expert.rows[i]), expert.out.row(i), out.cols,
                                   expert.shares[i]);
    }
  }
}

absl::Status FeedForwardGradient::LoadExpert(uint32_t number) {
  if (loaded_ == number) return absl::OkStatus();
  loaded_ = -1;
  const std::string layer = absl::StrCat("blk.", layer_, ".");
  const uint64_t ffn = config_.d_ffn, d = config_.d_model;
  std::vector<TensorRows> gate_up, down;
  if (routed()) {
    gate_up = {{layer + "ffn_gate_exps.weight", number * ffn, ffn},
               {layer + "ffn_up_exps.weight", number * ffn, ffn}};
    down = {{layer + "ffn_down_exps.weight", number * d, d}};
  } else {
    gate_up = {{layer + "ffn_gate.weight", 0, ffn}, {layer + "ffn_up.weight", 0, ffn}};
    if (config_.traits().fused) gate_up = {{layer + "ffn_up.weight", 0, 2 * ffn}};
    down = {{layer + "ffn_down.weight", 0, d}};
  }
  RETURN_IF_ERROR(gate_up_.Load(file_, gate_up, d, *compute_.team));
  RETURN_IF_ERROR(down_.Load(file_, down, ffn, *compute_.team));
  loaded_ = number;
  return absl::OkStatus();
}

void FeedForwardGradient::BackExpert(const Expert& expert, ConstMatrixRef dout, MatrixRef dshares,
                                     MatrixRef dx) {
  const size_t rows = expert.rows.size(), ffn = config_.d_ffn;
  Matrix gathered = Gather(dout, expert.rows);
  for (size_t i = 0; i < rows; ++i) {
    if (routed())
      dshares.data[expert.choices[i]] = Dot(gathered.row(i), expert.out.ref().row(i), dout.cols);
    for (size_t k = 0; k < dout.cols; ++k) gathered.row(i)[k] *= expert.shares[i];
  }
  Matrix dgated(rows, ffn), dboth(rows, 2 * ffn), dgathered(rows, dx.cols);
  linear_.Run(gathered.ref(), {{down_.matrix(), dgated.ref()}});
  compute_.team->ParallelFor(rows, [&](size_t i) {
    GateBackward(config_.traits().activation, expert.gate.ref().row(i), expert.up.ref().row(i),
                 dgated.row(i), ffn, dboth.row(i), dboth.row(i) + ffn);
  });
  linear_.Run(dboth.ref(), {{gate_up_.matrix(), dgathered.ref()}});
  for (size_t i = 0; i < rows; ++i) {
    compute_.kernels->add(dx.row(expert.rows[i]), dgathered.row(i), dx.cols);
  }
}

// The shares are a softmax over the logits of the chosen.
void FeedForwardGradient::BackRouter(ConstMatrixRef dshares, MatrixRef dx) {
  Matrix dlogits(dx.rows, config_.experts), through(dx.rows, dx.cols);
  for (size_t row = 0; row < dx.rows; ++row) {
    const float* share = shares_.row(row);
    const float mean = Dot(share, dshares.row(row), used());
    for (size_t i = 0; i < used(); ++i) {
      dlogits.row(row)[chosen_[row * used() + i]] = share[i] * (dshares.row(row)[i] - mean);
    }
  }
  linear_.Run(dlogits.ref(), {{router_.matrix(), through.ref()}});
  Add(compute_, dx, through.ref());
}

absl::Status FeedForwardGradient::Backward(absl::Span<const ConstMatrixRef> dout,
                                           absl::Span<const MatrixRef> dx) {
  std::vector<Matrix> dshares(dout.size());
  for (size_t i = 0; i < dout.size(); ++i) {
    dshares[i] = Matrix(dout[i].rows, used());
    std::fill_n(dx[i].data, dx[i].rows * dx[i].cols, 0.0f);
  }
  for (uint32_t number = 0; number < experts_.size(); ++number) {
    if (experts_[number].rows.empty()) continue;
    RETURN_IF_ERROR(LoadExpert(number));
    for (size_t i = 0; i < dout.size(); ++i) {
      BackExpert(experts_[number], dout[i], dshares[i].ref(), dx[i]);
    }
  }
  if (!routed()) return absl::OkStatus();
  RETURN_IF_ERROR(router_.Load(
      file_, {{absl::StrCat("blk.", layer_, ".ffn_gate_inp.weight"), 0, config_.experts}},
      config_.d_model, *compute_.team));
  for (size_t i = 0; i < dout.size(); ++i) BackRouter(dshares[i].ref(), dx[i]);
  return absl::OkStatus();
}

}  // namespace efedllm
