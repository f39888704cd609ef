// Which form each matrix gets: pure rules.
#ifndef EFEDLLM_APP_COMPRESSION_PLAN_H_
#define EFEDLLM_APP_COMPRESSION_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace efedllm {

// What --budget says.
struct CompressionBudget {
  enum class Kind { kRatio, kBytes, kMeanKl };
  Kind kind = Kind::kRatio;
  double ratio = 0;    // of the file, in (0, 1)
  uint64_t bytes = 0;  // of the new file
  double mean_kl = 0;  // nats, on the held-out text
};

// "0.8" or "80%", "200MB" or "1.5 GiB", "kl=0.05". InvalidArgument: none of these.
absl::StatusOr<CompressionBudget> ParseBudget(absl::string_view text);

// What a matrix may become: bytes, and how much of the model's KL that is expected to cost.
struct PlanChoice {
  uint64_t bytes = 0;
  double kl = 0;
};

// For each matrix the index of its choice.
using CompressionChoices = std::vector<size_t>;

// Least KL for at most so many bytes: each matrix begins with its smallest choice, then the step on
// any matrix's lower convex hull that saves most KL per byte is taken, as long as one fits, and
// what is left goes to whatever it buys most with (Lagrange's rule; Shoham and Gersho 1988). Every
// matrix has a choice. ResourceExhausted: even the smallest choices take more; says how much.
absl::StatusOr<CompressionChoices> PlanForBytes(
    const std::vector<std::vector<PlanChoice>>& matrices, uint64_t bytes);

// Fewest bytes, by the same steps, so that the expected KL is at most this.
CompressionChoices PlanForKl(const std::vector<std::vector<PlanChoice>>& matrices, double kl);

uint64_t PlannedBytes(const std::vector<std::vector<PlanChoice>>& matrices,
                      const CompressionChoices& choices);
double ExpectedKl(const std::vector<std::vector<PlanChoice>>& matrices,
                  const CompressionChoices& choices);

}  // namespace efedllm

#endif  // EFEDLLM_APP_COMPRESSION_PLAN_H_
