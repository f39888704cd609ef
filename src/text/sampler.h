// Logits -> the next token.
#ifndef EFEDLLM_TEXT_SAMPLER_H_
#define EFEDLLM_TEXT_SAMPLER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/random.h"

namespace efedllm {

// Applied in this order: biases, penalties, temperature, top_k, top_p, min_p, each on what the one
// before left.
struct SamplingOptions {
  float temperature = 1;         // 0 to 2. 0: greedy, the lowest id wins a tie
  int32_t top_k = 0;             // 0: off
  float top_p = 1;               // 0 to 1. 1: off. The likeliest token always stays
  float min_p = 0;               // 0 to 1, of the likeliest token's probability. 0: off
  float presence_penalty = 0;    // -2 to 2, taken off once from a token that is in the output
  float frequency_penalty = 0;   // -2 to 2, taken off for each time that it is
  float repetition_penalty = 1;  // above 0, to 10. 1: off. A token of prompt or output: a positive
                                 // logit is divided by it, a negative one multiplied
  uint64_t seed = 0;
};

// InvalidArgument names the field that is NaN, negative or out of range, and the range.
absl::Status ValidateSamplingOptions(const SamplingOptions& options);

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;  // natural logarithm; -9999 stands for all that is less likely, as in OpenAI
};

// ln softmax of the raw logits for `token`, and the `top` likeliest tokens, likeliest first (ties:
// lower id). The same bits on every CPU. A NaN counts as minus infinity; logits: not empty.
struct Logprobs {
  float chosen = 0;
  std::vector<TokenLogprob> top;
};
Logprobs ComputeLogprobs(absl::Span<const float> logits, int32_t token, int top);

// One per sequence; one caller at a time. The same tokens from the same seed, options and logits,
// on every CPU.
class Sampler {
 public:
  // prompt: counts for the repetition penalty only. bias: tokens, and what is added to their logits
  // before anything else; tokens outside of the vocabulary count for nothing.
  Sampler(const SamplingOptions& options, absl::Span<const int32_t> prompt,
          std::vector<std::pair<int32_t, float>> bias = {});
  // A copy picks what this one would have picked next.
  Sampler(const Sampler& other)
      : options_(other.options_),
        penalises_(other.penalises_),
        bias_(other.bias_),
        random_(other.random_),
        seen_(other.seen_) {}

  // Picks, and remembers the token for the penalties. logits: [vocab], not empty; not changed. A
  // NaN counts as minus infinity.
  int32_t Sample(absl::Span<const float> logits);

 private:
  struct Candidate {
    int32_t token = 0;
    float logit = 0;
    double weight = 0;  // its probability, not normalised
  };
  struct Count {
    int32_t token = 0;
    int32_t in_output = 0;
  };

  void LoadCandidates(absl::Span<const float> logits);
  void Penalise();
  void Remember(int32_t token);
  void KeepTopK();
  double Weigh();
  void SortFirst(size_t n);
  double KeepTopPAndMinP(double total);

  const SamplingOptions options_;
  const bool penalises_;
  const std::vector<std::pair<int32_t, float>> bias_;
  Random random_;
  std::vector<Count> seen_;            // sorted by token; only kept if penalises_
  std::vector<Candidate> candidates_;  // scratch
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_SAMPLER_H_
