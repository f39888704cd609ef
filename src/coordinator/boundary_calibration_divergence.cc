#include "coordinator/boundary_calibration_divergence.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "common/status_macros.h"
#include "layers/kernels/kernel_table.h"
#include "model/boundary_rows.h"
#include "model/embedding.h"
#include "svd/codec.h"

namespace efedllm {
namespace {

constexpr uint64_t kFewestOfKind = 128;  // tokens of a kind, for a mean of its own
constexpr size_t kEncodedRows = 256;
constexpr uint64_t kLogitsBytes = 32u << 20;

// A boundary coded in a way, and the text behind the layers so far.
struct Variant {
  float* kl;  // where its mean goes
  MatrixRef rows;
  std::vector<double> divergence = {};  // of each row
};

// The largest mean of a kind of rows that has enough of them, or that of all.
double WorstMean(const std::vector<double>& divergence, const DivergenceText& text) {
  struct Sum {
    double sum = 0;
    uint64_t rows = 0;
  };
  std::map<std::string, Sum> kinds;
  Sum all;
  size_t row = 0;
  for (size_t i = 0; i < text.lengths.size(); ++i) {
    Sum& kind = kinds[text.kinds[i]];
    for (uint32_t k = 0; k < text.lengths[i]; ++k) kind.sum += divergence[row++];
    kind.rows += text.lengths[i];
  }
  double worst = 0;
  for (const auto& [name, kind] : kinds) {
    all.sum += kind.sum;
    all.rows += kind.rows;
    if (kind.rows < kFewestOfKind) continue;
    worst = std::max(worst, kind.sum / static_cast<double>(kind.rows));
  }
  return std::max(worst, all.sum / static_cast<double>(all.rows));
}

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
      variant.divergence.resize(plain.rows);
      compute.team->ParallelFor(rows, [&](size_t row) {
        variant.divergence[first + row] =
            RowDivergence({p.row(row), config.vocab}, {log_p.row(row), config.vocab},
                          {log_q.row(row), config.vocab});
      });
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
  constexpr size_t kVariants = 2 * std::tuple_size_v<decltype(kMeasuredSteps)>;
  ASSIGN_OR_RETURN(
      const ScratchMatrices scratch,
      ScratchMatrices::Create(scratch_dir, kVariants * bases.size(), plain.rows, plain.cols));
  std::vector<Variant> variants;
  std::vector<MatrixRef> running;
  const auto code = [&](uint32_t boundary) {
    for (const std::shared_ptr<BoundaryBasis>& basis : bases) {
      if (basis->boundary != boundary) continue;
      for (const CodecId codec : {CodecId::kScalar, CodecId::kKlt}) {
        CoefficientModel& model = codec == CodecId::kKlt ? basis->klt : basis->scalar;
        for (size_t i = 0; i < kMeasuredSteps.size(); ++i) {
          const CodecSetting setting{codec,
                                     static_cast<uint8_t>(StepIndexBelow(kMeasuredSteps[i]))};
          running.push_back(scratch.at(variants.size()));
          variants.push_back({&model.kl[i], running.back()});
          RETURN_IF_ERROR(Code(basis, setting, text.rows(boundary), running.back()));
        }
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
    *variant.kl = static_cast<float>(WorstMean(variant.divergence, text));
  }
  return absl::OkStatus();
}

}  // namespace efedllm
