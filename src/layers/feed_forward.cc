#include "layers/feed_forward.h"

#include <algorithm>
#include <numeric>

#include "absl/container/inlined_vector.h"
#include "layers/elementwise.h"
#include "layers/kernels/kernel_table.h"
#include "layers/scratch.h"

namespace efedllm {

void FeedForward::Run(const FeedForwardWeights& weights, ConstMatrixRef x, MatrixRef y) {
  if (weights.router.w.data == nullptr) {
    RunOne(weights.gate, weights.up, weights.down, x, y);
  } else {
    RunExperts(weights, x, y);
  }
}

void FeedForward::RunOne(const Projection& gate, const Projection& up, const Projection& down,
                         ConstMatrixRef x, MatrixRef y) {
  const MatrixRef gated = Shaped(gate_, x.rows, shape_.d_ffn);
  const MatrixRef raised = Shaped(up_, x.rows, shape_.d_ffn);
  linear_.Project(x, {{gate, gated}, {up, raised}});
  AddBias(compute_, gated, gate.bias);
  AddBias(compute_, raised, up.bias);
  shape_.activation(compute_, gated, raised);
  linear_.Project(gated, {{down, y}});
  AddBias(compute_, y, down.bias);
}

// Experts add up in the order of their numbers, so that a row's sum does not depend on its mates.
void FeedForward::RunExperts(const FeedForwardWeights& weights, ConstMatrixRef x, MatrixRef y) {
  Route(weights.router, x);
  std::fill_n(y.data, y.rows * y.cols, 0.0f);
  for (uint32_t expert = 0; expert < shape_.experts; ++expert) {
    const std::vector<Routed>& routed = by_expert_[expert];
    if (routed.empty()) continue;
    const MatrixRef gathered = Shaped(gathered_, routed.size(), x.cols);
    const MatrixRef results = Shaped(results_, routed.size(), y.cols);
    for (size_t i = 0; i < routed.size(); ++i) {
      std::copy_n(x.row(routed[i].row), x.cols, gathered.row(i));
    }
    const size_t rows = shape_.d_ffn, outputs = shape_.d_model;
    RunOne({weights.gate.w.Slice(expert * rows, rows), {}},
           {weights.up.w.Slice(expert * rows, rows), {}},
           {weights.down.w.Slice(expert * outputs, outputs), {}}, gathered, results);
    for (size_t i = 0; i < routed.size(); ++i) {
      compute_.kernels->add_scaled(y.row(routed[i].row), results.row(i), y.cols, routed[i].share);
    }
  }
}

void FeedForward::Route(const Projection& router, ConstMatrixRef x) {
  const MatrixRef logits = Shaped(router_logits_, x.rows, shape_.experts);
  linear_.Run(x, {{router.w, logits}});
  AddBias(compute_, logits, router.bias);
  by_expert_.resize(shape_.experts);
  for (std::vector<Routed>& routed : by_expert_) routed.clear();
  for (size_t row = 0; row < x.rows; ++row) Choose(logits.row(row), static_cast<uint32_t>(row));
}

// The experts of the largest logits, the first of equal ones; shares e^logit over the sum of those
// of the chosen, which is added up in the order of choice.
void FeedForward::Choose(const float* logits, uint32_t row) {
  absl::InlinedVector<uint32_t, 128> order(shape_.experts);
  std::iota(order.begin(), order.end(), 0u);
  const auto used = order.begin() + shape_.experts_used;
  std::partial_sort(order.begin(), used, order.end(), [&](uint32_t a, uint32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  absl::InlinedVector<float, 16> powers;
  for (auto i = order.begin(); i != used; ++i) powers.push_back(logits[*i] - logits[order[0]]);
  compute_.kernels->exp(powers.data(), powers.size(), powers.data());
  float sum = 0;
  for (const float power : powers) sum += power;
  for (size_t i = 0; i < powers.size(); ++i) {
    by_expert_[order[i]].push_back({row, powers[i] / sum});
  }
}

}  // namespace efedllm
