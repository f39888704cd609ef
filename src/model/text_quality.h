// How well a model predicts a text, and how far it is from another model: in double, by
// log-sum-exp.
#ifndef EFEDLLM_MODEL_TEXT_QUALITY_H_
#define EFEDLLM_MODEL_TEXT_QUALITY_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/logits_source.h"

namespace efedllm {

// ln softmax(logits)[token]. Not finite where a logit isn't.
double LogProbability(absl::Span<const float> logits, int32_t token);
// KL(reference ‖ model) of two positions' distributions, nats, never below 0.
double KlDivergence(absl::Span<const float> reference, absl::Span<const float> model);

struct Perplexity {
  double perplexity = 0;      // exp of the mean of -ln p
  double standard_error = 0;  // of it, from the spread of -ln p; 0 of one token
  uint64_t tokens = 0;        // that were predicted
};

// visit sees the logits of every prediction in order, and may end it with an error. DataLoss: a
// logit is not finite. InvalidArgument: a token outside of the vocabulary.
absl::StatusOr<Perplexity> MeasurePerplexity(
    LogitsSource& source, const TextWindows& text,
    absl::FunctionRef<absl::Status(absl::Span<const float> logits)> visit);

struct Divergence {
  double mean_kl = 0;         // Kullback-Leibler divergence of the model from the reference, nats
  double max_kl = 0;          // at the worst position
  double top1_agreement = 0;  // share of positions where both have the same likeliest token
  Perplexity model;
  Perplexity reference;
};

// InvalidArgument: their vocabularies differ. Others as above.
absl::StatusOr<Divergence> MeasureDivergence(LogitsSource& model, LogitsSource& reference,
                                             const TextWindows& text);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_TEXT_QUALITY_H_
