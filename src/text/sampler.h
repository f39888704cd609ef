// Logits -> the next token.
#ifndef EFEDLLM_TEXT_SAMPLER_H_
#define EFEDLLM_TEXT_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/random.h"

namespace efedllm {

struct SamplingOptions {
  float temperature = 1;  // 0: greedy, the lowest id wins a tie
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // 1: off
  float min_p = 0;        // 0: off
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float repetition_penalty = 1;  // 1: off; over prompt and output
  uint64_t seed = 0;
};

// InvalidArgument names the field that is NaN, negative or out of range, and the range.
absl::Status ValidateSamplingOptions(const SamplingOptions& options);

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;  // natural logarithm
};

// ln softmax of the raw logits for `token`, and the `top` likeliest tokens, likeliest first (ties:
// lower id). The same bits on every CPU.
struct Logprobs {
  float chosen = 0;
  std::vector<TokenLogprob> top;
};
Logprobs ComputeLogprobs(absl::Span<const float> logits, int32_t token, int top);

// One per sequence; one caller at a time. The same tokens from the same seed, options and logits,
// on every CPU.
class Sampler {
 public:
  // prompt: counts for the repetition penalty only.
  Sampler(const SamplingOptions& options, absl::Span<const int32_t> prompt);

  // Picks, and remembers the token for the penalties. logits: [vocab]; not changed. A NaN counts as
  // minus infinity.
  int32_t Sample(absl::Span<const float> logits);

 private:
  struct Count {
    int32_t token = 0;
    int32_t in_output = 0;
  };
  const SamplingOptions options_;
  Random random_;
  std::vector<Count> seen_;               // sorted by token
  std::vector<TokenLogprob> candidates_;  // scratch
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_SAMPLER_H_
