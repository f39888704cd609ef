#include "model/text_quality.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr size_t kLogitsBytes = 32u << 20;

// ln of the sum of e^x.
double LogSumExp(absl::Span<const float> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - most);
  return most + std::log(sum);
}

// Sum and spread of -ln p.
class Losses {
 public:
  void Add(double loss) {
    sum_ += loss;
    squares_ += loss * loss;
    ++count_;
  }
  Perplexity Result() const {
    const double n = static_cast<double>(count_);
    const double mean = sum_ / n;
    Perplexity result;
    result.perplexity = std::exp(mean);
    result.tokens = count_;
    if (count_ > 1) {
      const double variance = std::max(0.0, squares_ / n - mean * mean);
      result.standard_error = result.perplexity * std::sqrt(variance / (n - 1));
    }
    return result;
  }

 private:
  double sum_ = 0, squares_ = 0;
  uint64_t count_ = 0;
};

// Walks all predictions, some at a time: begin(window), and at(window, first, rows), where rows
// positions from first on predict the tokens behind them.
absl::Status ForEachBlock(
    const TextWindows& text, uint32_t vocab,
    absl::FunctionRef<absl::Status(absl::Span<const int32_t> window)> begin,
    absl::FunctionRef<absl::Status(absl::Span<const int32_t> window, size_t first, size_t rows)>
        at) {
  const size_t most = std::clamp<size_t>(kLogitsBytes / (vocab * sizeof(float)), 1, 64);
  for (const std::vector<int32_t>& window : text.windows) {
    for (const int32_t token : window) {
      if (token >= 0 && static_cast<uint32_t>(token) < vocab) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("token ", token, " is outside of the vocabulary [0, ", vocab, ")"));
    }
    RETURN_IF_ERROR(begin(window));
    for (size_t first = 0; first + 1 < window.size(); first += most) {
      RETURN_IF_ERROR(at(window, first, std::min(most, window.size() - 1 - first)));
    }
  }
  return absl::OkStatus();
}

// The rows of one block, and checked.
absl::Status ReadBlock(LogitsSource& source, absl::Span<const int32_t> window, size_t first,
                       size_t rows, Matrix& logits) {
  logits = Matrix(rows, source.vocab());
  RETURN_IF_ERROR(
      source.Read(static_cast<uint32_t>(first), window.subspan(first, rows), logits.ref()));
  const absl::Span<float> all = logits.ref().span();
  if (std::all_of(all.begin(), all.end(), [](float x) { return std::isfinite(x); })) {
    return absl::OkStatus();
  }
  return absl::DataLossError("the logits are not finite: the weights or the file are damaged");
}

absl::Span<const float> RowOf(const Matrix& logits, size_t row) {
  return {logits.ref().row(row), logits.cols()};
}

}  // namespace

double KlDivergence(absl::Span<const float> reference, absl::Span<const float> model) {
  const double reference_sum = LogSumExp(reference);
  const double model_sum = LogSumExp(model);
  double kl = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double log_p = double{reference[i]} - reference_sum;
    kl += std::exp(log_p) * (log_p - (double{model[i]} - model_sum));
  }
  return std::max(kl, 0.0);  // below it only by rounding
}

double LogProbability(absl::Span<const float> logits, int32_t token) {
  return double{logits[static_cast<size_t>(token)]} - LogSumExp(logits);
}

absl::StatusOr<Perplexity> MeasurePerplexity(
    LogitsSource& source, const TextWindows& text,
    absl::FunctionRef<absl::Status(absl::Span<const float> logits)> visit) {
  Losses losses;
  Matrix logits;
  RETURN_IF_ERROR(ForEachBlock(
      text, source.vocab(), [&](absl::Span<const int32_t> window) { return source.Begin(window); },
      [&](absl::Span<const int32_t> window, size_t first, size_t rows) -> absl::Status {
        RETURN_IF_ERROR(ReadBlock(source, window, first, rows, logits));
        for (size_t i = 0; i < rows; ++i) {
          losses.Add(-LogProbability(RowOf(logits, i), window[first + i + 1]));
          RETURN_IF_ERROR(visit(RowOf(logits, i)));
        }
        return absl::OkStatus();
      }));
  return losses.Result();
}

absl::StatusOr<Divergence> MeasureDivergence(LogitsSource& model, LogitsSource& reference,
                                             const TextWindows& text) {
  if (model.vocab() != reference.vocab()) {
    return absl::InvalidArgumentError(absl::StrCat("the vocabularies differ: the model's has ",
                                                   model.vocab(), " tokens, the reference's ",
                                                   reference.vocab()));
  }
  Divergence result;
  Losses model_losses, reference_losses;
  uint64_t agreed = 0;
  double sum = 0;
  Matrix ours, theirs;
  RETURN_IF_ERROR(ForEachBlock(
      text, model.vocab(),
      [&](absl::Span<const int32_t> window) -> absl::Status {
        RETURN_IF_ERROR(model.Begin(window));
        return reference.Begin(window);
      },
      [&](absl::Span<const int32_t> window, size_t first, size_t rows) -> absl::Status {
        RETURN_IF_ERROR(ReadBlock(model, window, first, rows, ours));
        RETURN_IF_ERROR(ReadBlock(reference, window, first, rows, theirs));
        for (size_t i = 0; i < rows; ++i) {
          const int32_t next = window[first + i + 1];
          model_losses.Add(-LogProbability(RowOf(ours, i), next));
          reference_losses.Add(-LogProbability(RowOf(theirs, i), next));
          agreed += ArgMax(RowOf(ours, i)) == ArgMax(RowOf(theirs, i));
          const double kl = KlDivergence(RowOf(theirs, i), RowOf(ours, i));
          sum += kl;
          result.max_kl = std::max(result.max_kl, kl);
        }
        return absl::OkStatus();
      }));
  result.model = model_losses.Result();
  result.reference = reference_losses.Result();
  const double count = static_cast<double>(result.model.tokens);
  result.mean_kl = sum / count;
  result.top1_agreement = static_cast<double>(agreed) / count;
  return result;
}

}  // namespace efedllm
