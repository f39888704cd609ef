#include "coordinator/boundary_calibration_divergence.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "common/status_macros.h"
#include "layers/kernels/kernel_table.h"
#include "model/boundary_rows.h"
#include "model/embedding.h"
#include "svd/codec.h"

namespace efedllm {
namespace {

constexpr float kStep = 0.25f;  // of the steps that levels choose, a middle one
constexpr size_t kEncodedRows = 256;
constexpr uint64_t kLogitsBytes = 32u << 20;

struct Variant {
  BoundaryBasis* basis;
  CodecId codec;
  MatrixRef rows;  // as they are behind the layers so far
  double divergence = 0;

  CoefficientModel& model() const { return codec == CodecId::kKlt ? basis->klt : basis->scalar; }
};

absl::Status Code(const std::shared_ptr<const BoundaryBasis>& basis, CodecSetting setting,
                  ConstMatrixRef rows, MatrixRef out) {
  ActivationCodec codec(rows.cols, basis);
  for (size_t first = 0; first < rows.rows; first += kEncodedRows) {
    const size_t count = std::min(kEncodedRows, rows.rows - first);
    std::string bytes;
    codec.Encode(setting, {rows.row(first), count, rows.cols}, bytes);
    RETURN_IF_ERROR(codec.Decode(setting,
                                 {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()},
                                 {out.row(first), count, rows.cols}));
  }
  return absl::OkStatus();
}

// Logits become log p, in place.
void LogSoftmax(MatrixRef logits, Compute& compute) {
  compute.team->ParallelFor(logits.rows, [&](size_t row) {
    float* x = logits.row(row);
    const float largest = *std::max_element(x, x + logits.cols);
    std::vector<float> powers(x, x + logits.cols);
    for (float& power : powers) power -= largest;
    compute.kernels->exp(powers.data(), powers.size(), powers.data());
    double sum = 0;
    for (const float power : powers) sum += double{power};
    const auto log_sum = static_cast<float>(std::log(sum));
    for (size_t i = 0; i < logits.cols; ++i) x[i] = x[i] - largest - log_sum;
  });
}

// Σ p (log p - log q) over a row; p from the kernels' exp, q as its logarithm.
double RowDivergence(absl::Span<const float> p, absl::Span<const float> log_p,
                     absl::Span<const float> log_q) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += double{p[i]} * (double{log_p[i]} - double{log_q[i]});
  return std::max(0.0, sum);
}

// Adds up the variants' divergence from the uncoded model over all rows.
absl::Status CompareAtHead(const ModelFile& file, const ModelConfig& config, ConstMatrixRef plain,
                           Compute& compute, std::vector<Variant>& variants) {
  ASSIGN_OR_RETURN(const std::unique_ptr<OutputHead> head,
                   OutputHead::Create(config, file, compute));
  const size_t most = std::clamp<size_t>(kLogitsBytes / (config.vocab * sizeof(float)), 16, 512);
  for (size_t first = 0; first < plain.rows; first += most) {
    const size_t rows = std::min(most, plain.rows - first);
    Matrix log_p(rows, config.vocab), log_q(rows, config.vocab);
    head->Logits({plain.row(first), rows, plain.cols}, log_p.ref());
    LogSoftmax(log_p.ref(), compute);
    Matrix p = log_p;
    compute.kernels->exp(p.row(0), rows * config.vocab, p.row(0));
    for (Variant& variant : variants) {
      head->Logits({variant.rows.row(first), rows, plain.cols}, log_q.ref());
      LogSoftmax(log_q.ref(), compute);
      std::vector<double> divergence(rows);
      compute.team->ParallelFor(rows, [&](size_t row) {
        divergence[row] = RowDivergence({p.row(row), config.vocab}, {log_p.row(row), config.vocab},
                                        {log_q.row(row), config.vocab});
      });
      for (const double d : divergence) variant.divergence += d;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureDivergence(const ModelFile& file, const ModelConfig& config,
                               const DivergenceText& text, const std::string& scratch_dir,
                               absl::Span<const std::shared_ptr<BoundaryBasis>> bases,
                               Compute& compute, const std::function<bool()>& cancelled,
                               absl::FunctionRef<void(double share)> progress) {
  const ConstMatrixRef plain = text.rows(config.layers);
  ASSIGN_OR_RETURN(const ScratchMatrices scratch,
                   ScratchMatrices::Create(scratch_dir, 2 * bases.size(), plain.rows, plain.cols));
  std::vector<Variant> variants;
  std::vector<MatrixRef> running;
  const auto step = static_cast<uint8_t>(StepIndexBelow(kStep));
  const auto code = [&](uint32_t boundary) {
    for (const std::shared_ptr<BoundaryBasis>& basis : bases) {
      if (basis->boundary != boundary) continue;
      for (const CodecId codec : {CodecId::kScalar, CodecId::kKlt}) {
        running.push_back(scratch.at(variants.size()));
        variants.push_back({basis.get(), codec, running.back()});
        RETURN_IF_ERROR(Code(basis, {codec, step}, text.rows(boundary), running.back()));
      }
    }
    return absl::OkStatus();
  };
  for (uint32_t layer = bases.front()->boundary; layer < config.layers; ++layer) {
    RETURN_IF_ERROR(code(layer));
    RETURN_IF_ERROR(RunOneLayer(file, config, layer, text.lengths, running, compute, cancelled));
    progress(static_cast<double>(layer + 1) / (config.layers + 1));
  }
  RETURN_IF_ERROR(code(config.layers));
  RETURN_IF_ERROR(CompareAtHead(file, config, plain, compute, variants));
  for (const Variant& variant : variants) {
    const double mean = variant.divergence / static_cast<double>(plain.rows);
    const double size = double{StepSize(step)};
    variant.model().kl_per_step2 = static_cast<float>(mean / (size * size));
  }
  return absl::OkStatus();
}

}  // namespace efedllm
