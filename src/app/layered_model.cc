#include "app/layered_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/status_macros.h"
#include "model/text_quality.h"

namespace efedllm {
namespace {

constexpr SequenceId kSequence{1};
constexpr size_t kLogitsBytes = 16u << 20;

size_t LongestWindow(const TextWindows& text) {
  size_t longest = 0;
  for (const std::vector<int32_t>& window : text.windows)
    longest = std::max(longest, window.size());
  return longest;
}

// The sums behind a VariantQuality.
struct Sums {
  double kl = 0, max_kl = 0, loss = 0;
};

// Rows of logits against those of the reference.
absl::Status AddRow(absl::Span<const float> reference, absl::Span<const float> logits, int32_t next,
                    Sums& sums) {
  const auto finite = [](float x) { return std::isfinite(x); };
  if (!std::all_of(logits.begin(), logits.end(), finite)) {
    return absl::DataLossError("the logits are not finite: the weights are damaged");
  }
  const double kl = KlDivergence(reference, logits);
  sums.kl += kl;
  sums.max_kl = std::max(sums.max_kl, kl);
  sums.loss -= LogProbability(logits, next);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LayeredModel>> LayeredModel::Create(const ModelFile& file,
                                                                   const ModelConfig& config,
                                                                   Compute& compute) {
  ASSIGN_OR_RETURN(Embedding embedding, Embedding::Create(config, file));
  ASSIGN_OR_RETURN(std::unique_ptr<OutputHead> head, OutputHead::Create(config, file, compute));
  return std::unique_ptr<LayeredModel>(
      new LayeredModel(config, compute, std::move(embedding), std::move(head)));
}

absl::StatusOr<Matrix> LayeredModel::Embed(const TextWindows& text) const {
  size_t tokens = 0;
  for (const std::vector<int32_t>& window : text.windows) tokens += window.size();
  Matrix hidden(tokens, config_.d_model);
  size_t row = 0;
  for (const std::vector<int32_t>& window : text.windows) {
    RETURN_IF_ERROR(embedding_.Lookup(window, {hidden.row(row), window.size(), hidden.cols()}));
    row += window.size();
  }
  return hidden;
}

absl::Status LayeredModel::RunLayer(uint32_t layer, const std::vector<StageTensor>& tensors,
                                    const TextWindows& text,
                                    const std::vector<MatrixRef>& hidden) const {
  StageOptions options;
  options.config = config_;
  options.layers = {layer, layer + 1};
  options.kv_tokens = LongestWindow(text);
  options.limits.max_tokens = static_cast<uint32_t>(options.kv_tokens);
  options.limits.max_position = static_cast<uint32_t>(options.kv_tokens);
  ASSIGN_OR_RETURN(const std::unique_ptr<StageExecutor> executor,
                   StageExecutor::Create(options, tensors, compute_));
  for (const MatrixRef& all : hidden) {
    size_t row = 0;
    for (const std::vector<int32_t>& window : text.windows) {
      Step step;
      step.trims = {{kSequence, 0}};
      step.spans = {{kSequence, 0, static_cast<uint32_t>(window.size())}};
      RETURN_IF_ERROR(executor->Run(step, {all.row(row), window.size(), all.cols}));
      row += window.size();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<VariantQuality>> LayeredModel::Compare(
    const TextWindows& text, ConstMatrixRef reference,
    const std::vector<ConstMatrixRef>& variants) {
  const size_t most = std::clamp<size_t>(kLogitsBytes / (config_.vocab * sizeof(float)), 1, 64);
  Matrix expected(most, config_.vocab), logits(most, config_.vocab);
  std::vector<Sums> sums(variants.size() + 1);
  size_t begin = 0;
  for (const std::vector<int32_t>& window : text.windows) {
    for (size_t first = 0; first + 1 < window.size(); first += most) {
      const size_t rows = std::min(most, window.size() - 1 - first);
      const auto row_of = [&](Matrix& m, size_t i) {
        return absl::MakeConstSpan(m.row(i), config_.vocab);
      };
      const auto part = [&](ConstMatrixRef all) {
        return ConstMatrixRef{all.row(begin + first), rows, all.cols};
      };
      head_->Logits(part(reference), {expected.row(0), rows, expected.cols()});
      for (size_t v = 0; v <= variants.size(); ++v) {
        Matrix& ours = v == 0 ? expected : logits;
        if (v > 0) head_->Logits(part(variants[v - 1]), {logits.row(0), rows, logits.cols()});
        for (size_t i = 0; i < rows; ++i) {
          RETURN_IF_ERROR(
              AddRow(row_of(expected, i), row_of(ours, i), window[first + i + 1], sums[v]));
        }
      }
    }
    begin += window.size();
  }
  std::vector<VariantQuality> result;
  result.reserve(sums.size());
  const auto count = static_cast<double>(text.predictions());
  for (const Sums& s : sums) result.push_back({s.kl / count, s.max_kl, std::exp(s.loss / count)});
  return result;
}

}  // namespace efedllm
