#include "layers/elementwise.h"

#include <algorithm>

#include "common/check.h"
#include "layers/kernels/kernel_table.h"

namespace efedllm {
namespace {

constexpr size_t kRowsPerChunk = 4;

template <class Body>
void ForRows(Compute& compute, size_t rows, const Body& body) {
  compute.team->ParallelFor((rows + kRowsPerChunk - 1) / kRowsPerChunk, [&](size_t chunk) {
    const size_t end = std::min(rows, (chunk + 1) * kRowsPerChunk);
    for (size_t r = chunk * kRowsPerChunk; r < end; ++r) body(r);
  });
}

}  // namespace

void RmsNorm(Compute& compute, ConstMatrixRef x, absl::Span<const float> weight, float epsilon,
             MatrixRef y) {
  CHECK(weight.size() == x.cols && y.rows == x.rows && y.cols == x.cols);
  ForRows(compute, x.rows, [&](size_t r) {
    compute.kernels->rms_norm(x.row(r), weight.data(), x.cols, epsilon, y.row(r));
  });
}

void HeadRmsNorm(Compute& compute, MatrixRef x, absl::Span<const float> weight, float epsilon) {
  const size_t head_dim = weight.size();
  CHECK(head_dim > 0 && x.cols % head_dim == 0);
  ForRows(compute, x.rows, [&](size_t r) {
    for (float* head = x.row(r); head < x.row(r) + x.cols; head += head_dim) {
      compute.kernels->rms_norm(head, weight.data(), head_dim, epsilon, head);
    }
  });
}

void SiluMul(Compute& compute, MatrixRef gate, ConstMatrixRef up) {
  CHECK(gate.rows == up.rows && gate.cols == up.cols);
  ForRows(compute, gate.rows,
          [&](size_t r) { compute.kernels->silu_mul(gate.row(r), up.row(r), gate.cols); });
}

void GeluMul(Compute& compute, MatrixRef gate, ConstMatrixRef up) {
  CHECK(gate.rows == up.rows && gate.cols == up.cols);
  ForRows(compute, gate.rows,
          [&](size_t r) { compute.kernels->gelu_mul(gate.row(r), up.row(r), gate.cols); });
}

void SoftCap(Compute& compute, MatrixRef x, float cap) {
  CHECK(cap > 0);
  ForRows(compute, x.rows, [&](size_t r) { compute.kernels->soft_cap(x.row(r), x.cols, cap); });
}

void Add(Compute& compute, MatrixRef x, ConstMatrixRef y) {
  CHECK(x.rows == y.rows && x.cols == y.cols);
  ForRows(compute, x.rows, [&](size_t r) { compute.kernels->add(x.row(r), y.row(r), x.cols); });
}

void AddBias(Compute& compute, MatrixRef x, absl::Span<const float> bias) {
  if (bias.empty()) return;
  CHECK(bias.size() == x.cols);
  ForRows(compute, x.rows, [&](size_t r) { compute.kernels->add(x.row(r), bias.data(), x.cols); });
}

}  // namespace efedllm
