#include "model/gradient_head.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/random.h"
#include "common/status_macros.h"
#include "layers/elementwise.h"
#include "layers/kernels/kernel_table.h"
#include "model/gradient_math.h"
#include "model/weights.h"
#include "tensor/blocks.h"

namespace efedllm {
namespace {

constexpr uint64_t kTransposedBytes = 256u << 20;

}  // namespace

Random DrawsOfRow(uint64_t seed, uint64_t row) {
  Random random(seed + 0x632be59bd9b4e019u * row);
  random.Next();
  return random;
}

size_t DrawToken(absl::Span<const float> p, Random& random) {
  double left = random.Uniform();
  size_t token = 0;
  while (token + 1 < p.size() && (left -= p[token]) >= 0) ++token;
  return token;
}

absl::StatusOr<HeadGradient> HeadGradient::Create(const ModelFile& file, const ModelConfig& config,
                                                  Compute& compute) {
  ASSIGN_OR_RETURN(const HeadSpecs specs, HeadTensors(config, file));
  ASSIGN_OR_RETURN(std::vector<StageTensor> tensors,
                   LoadTensors(file, {specs.norm, specs.weight}, {.team = compute.team.get()}));
  return HeadGradient(file, config, std::move(tensors), compute);
}

void HeadGradient::Softmax(MatrixRef logits) const {
  compute_.team->ParallelFor(logits.rows, [&](size_t row) {
    float* p = logits.row(row);
    const float largest = *std::max_element(p, p + logits.cols);
    for (size_t i = 0; i < logits.cols; ++i) p[i] -= largest;
    compute_.kernels->exp(p, logits.cols, p);
    double sum = 0;
    for (size_t i = 0; i < logits.cols; ++i) sum += p[i];
    const float inverse = static_cast<float>(1 / sum);
    for (size_t i = 0; i < logits.cols; ++i) p[i] *= inverse;
  });
}

absl::Status HeadGradient::Expect(ConstMatrixRef p, MatrixRef out) {
  const uint64_t most = std::max<uint64_t>(kGroupRows, kTransposedBytes / (4 * out.cols));
  std::fill_n(out.data, out.rows * out.cols, 0.0f);
  Matrix sum(out.rows, out.cols);
  for (uint64_t first = 0; first < p.cols; first += most) {
    const uint64_t tokens = std::min<uint64_t>(most, p.cols - first);
    if (loaded_ != static_cast<int64_t>(first)) {
      loaded_ = -1;
      RETURN_IF_ERROR(
          transposed_.Load(file_, {{weight_.spec.name, first, tokens}}, out.cols, *compute_.team));
      loaded_ = static_cast<int64_t>(first);
    }
    Matrix part(p.rows, tokens);
    for (size_t row = 0; row < p.rows; ++row) {
      std::copy_n(p.row(row) + first, tokens, part.row(row));
    }
    linear_.Run(part.ref(), {{transposed_.matrix(), sum.ref()}});
    Add(compute_, out, sum.ref());
  }
  return absl::OkStatus();
}

// One row's draws. A drawn token's gradient is its own row of the weight less the expected one.
void HeadGradient::Draw(ConstMatrixRef inputs, size_t row, ConstMatrixRef p, ConstMatrixRef slopes,
                        const float* expected, Random random,
                        absl::Span<const MatrixRef> gradients) const {
  const size_t d = inputs.cols;
  const ModelTensor& weight = *file_.FindTensor(weight_.spec.name);
  const uint64_t row_bytes = weight_.spec.bytes() / weight_.spec.rows;
  std::vector<uint8_t> scratch;
  std::vector<float> dnormed(d);
  for (const MatrixRef gradient : gradients) {
    const size_t token = DrawToken({p.row(row), p.cols}, random);
    DequantizeRow(weight_.spec.dtype, weight.Bytes(token * row_bytes, row_bytes, scratch).data(), d,
                  dnormed.data());
    const float slope = slopes.rows == 0 ? 1 : slopes.row(row)[token];
    for (size_t i = 0; i < d; ++i) dnormed[i] = slope * dnormed[i] - expected[i];
    RmsNormBackward(inputs.row(row), norm_->vector().data(), d, config_.norm_epsilon,
                    dnormed.data(), false, gradient.row(row));
  }
}

absl::Status HeadGradient::Backward(ConstMatrixRef inputs, uint64_t seed, uint64_t first_row,
                                    absl::Span<const MatrixRef> gradients) {
  Matrix normed(inputs.rows, inputs.cols), logits(inputs.rows, config_.vocab), slopes;
  RmsNorm(compute_, inputs, norm_->vector(), config_.norm_epsilon, normed.ref());
  linear_.Run(normed.ref(), {{weight_.data->matrix(), logits.ref()}});
  Matrix expected(inputs.rows, inputs.cols);
  if (const float cap = config_.final_soft_cap; cap > 0) {
    SoftCap(compute_, logits.ref(), cap);
    slopes = logits;
    for (float& x : slopes.ref().span()) x = 1 - x / cap * (x / cap);
    Softmax(logits.ref());
    Matrix weighted = logits;
    const absl::Span<const float> slope = slopes.ref().span();
    for (size_t i = 0; i < slope.size(); ++i) weighted.ref().data[i] *= slope[i];
    RETURN_IF_ERROR(Expect(weighted.ref(), expected.ref()));
  } else {
    Softmax(logits.ref());
    RETURN_IF_ERROR(Expect(logits.ref(), expected.ref()));
  }
  compute_.team->ParallelFor(inputs.rows, [&](size_t row) {
    Draw(inputs, row, logits.ref(), slopes.ref(), expected.row(row),
         DrawsOfRow(seed, first_row + row), gradients);
  });
  return absl::OkStatus();
}

}  // namespace efedllm
