#include "app/compression_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/check.h"

namespace efedllm {
namespace {

absl::Status BadBudget(absl::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat(
      "--budget \"", text, "\" is no budget; give a share of the file's size (0.8 or 80%), a size ",
      "(200MB, 1.5GiB), or the most mean KL in nats (kl=0.05)"));
}

std::optional<double> Positive(absl::string_view text) {
  double value = 0;
  if (!absl::SimpleAtod(absl::StripAsciiWhitespace(text), &value)) return std::nullopt;
  if (!(value > 0) || !std::isfinite(value)) return std::nullopt;
  return value;
}

// The indices of a lower convex hull, from the fewest bytes to the least KL.
std::vector<size_t> LowerHull(const std::vector<PlanChoice>& choices) {
  std::vector<size_t> order(choices.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return choices[a].bytes != choices[b].bytes ? choices[a].bytes < choices[b].bytes
                                                : choices[a].kl < choices[b].kl;
  });
  const auto slope = [&](size_t a, size_t b) {
    return (choices[a].kl - choices[b].kl) /
           static_cast<double>(choices[b].bytes - choices[a].bytes);
  };
  std::vector<size_t> hull;
  for (const size_t next : order) {
    if (!hull.empty() && choices[next].kl >= choices[hull.back()].kl) continue;
    if (!hull.empty() && choices[next].bytes == choices[hull.back()].bytes) continue;
    while (hull.size() > 1 &&
           slope(hull[hull.size() - 2], hull.back()) <= slope(hull.back(), next)) {
      hull.pop_back();
    }
    hull.push_back(next);
  }
  return hull;
}

// Walks from the smallest choices towards the least KL, step by step.
class Walk {
 public:
  explicit Walk(const std::vector<std::vector<PlanChoice>>& matrices) : matrices_(matrices) {
    for (const std::vector<PlanChoice>& choices : matrices) {
      CHECK(!choices.empty());
      hulls_.push_back(LowerHull(choices));
    }
    at_.resize(matrices.size());
  }

  // The step that saves most KL per byte and takes at most so many more; false: there is none.
  bool Step(uint64_t most_bytes) {
    double best = -1;
    size_t matrix = 0;
    for (size_t i = 0; i < hulls_.size(); ++i) {
      if (at_[i] + 1 == hulls_[i].size()) continue;
      const PlanChoice &from = Choice(i, at_[i]), &to = Choice(i, at_[i] + 1);
      if (to.bytes - from.bytes > most_bytes) continue;
      const double gain = (from.kl - to.kl) / static_cast<double>(to.bytes - from.bytes);
      if (gain > best) best = gain, matrix = i;
    }
    if (best < 0) return false;
    ++at_[matrix];
    return true;
  }

  CompressionChoices Choices() const {
    CompressionChoices choices(hulls_.size());
    for (size_t i = 0; i < hulls_.size(); ++i) choices[i] = hulls_[i][at_[i]];
    return choices;
  }

 private:
  const PlanChoice& Choice(size_t matrix, size_t at) const {
    return matrices_[matrix][hulls_[matrix][at]];
  }

  const std::vector<std::vector<PlanChoice>>& matrices_;
  std::vector<std::vector<size_t>> hulls_;
  std::vector<size_t> at_;  // on the hull of each
};

// Spends what is left on any choice, on a hull or not, that saves most KL per byte.
void SpendRest(const std::vector<std::vector<PlanChoice>>& matrices, uint64_t rest,
               CompressionChoices& choices) {
  while (true) {
    double best = 0;
    size_t matrix = 0, choice = 0;
    for (size_t i = 0; i < matrices.size(); ++i) {
      const PlanChoice& now = matrices[i][choices[i]];
      for (size_t k = 0; k < matrices[i].size(); ++k) {
        const PlanChoice& next = matrices[i][k];
        if (next.kl >= now.kl || (next.bytes > now.bytes && next.bytes - now.bytes > rest)) {
          continue;
        }
        const double more =
            next.bytes > now.bytes ? static_cast<double>(next.bytes - now.bytes) : 1;
        const double gain = (now.kl - next.kl) / more;
        if (gain > best) best = gain, matrix = i, choice = k;
      }
    }
    if (best <= 0) return;
    rest += matrices[matrix][choices[matrix]].bytes;
    rest -= matrices[matrix][choice].bytes;
    choices[matrix] = choice;
  }
}

}  // namespace

absl::StatusOr<CompressionBudget> ParseBudget(absl::string_view text) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(text);
  CompressionBudget budget;
  absl::string_view rest = trimmed;
  if (absl::ConsumePrefix(&rest, "kl=")) {
    const std::optional<double> kl = Positive(rest);
    if (!kl) return BadBudget(text);
    budget.kind = CompressionBudget::Kind::kMeanKl;
    budget.mean_kl = *kl;
    return budget;
  }
  const bool percent = absl::ConsumeSuffix(&rest, "%");
  if (const std::optional<double> share = Positive(rest); share || percent) {
    if (!share) return BadBudget(text);
    budget.ratio = percent ? *share / 100 : *share;
    if (budget.ratio < 1) return budget;
    return absl::InvalidArgumentError(absl::StrCat(
        "--budget ", trimmed, " is a share of the file's size and must be below 1 (100%); a size ",
        "has a unit, like 200MB"));
  }
  const struct {
    absl::string_view name;
    double bytes;
  } units[] = {{"kib", 1024.0}, {"mib", 1048576.0}, {"gib", 1073741824.0},
               {"kb", 1e3},     {"mb", 1e6},        {"gb", 1e9},
               {"b", 1}};
  const std::string lower = absl::AsciiStrToLower(trimmed);
  for (const auto& unit : units) {
    absl::string_view number = lower;
    if (!absl::ConsumeSuffix(&number, unit.name)) continue;
    const std::optional<double> count = Positive(number);
    if (!count || *count * unit.bytes > 1e18) return BadBudget(text);
    budget.kind = CompressionBudget::Kind::kBytes;
    budget.bytes = static_cast<uint64_t>(*count * unit.bytes);
    return budget;
  }
  return BadBudget(text);
}

absl::StatusOr<CompressionChoices> PlanForBytes(
    const std::vector<std::vector<PlanChoice>>& matrices, uint64_t bytes) {
  Walk walk(matrices);
  uint64_t taken = PlannedBytes(matrices, walk.Choices());
  if (taken > bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the matrices take at least ", taken, " bytes, more than ", bytes));
  }
  while (walk.Step(bytes - taken)) taken = PlannedBytes(matrices, walk.Choices());
  CompressionChoices choices = walk.Choices();
  SpendRest(matrices, bytes - taken, choices);
  return choices;
}

CompressionChoices PlanForKl(const std::vector<std::vector<PlanChoice>>& matrices, double kl) {
  Walk walk(matrices);
  while (ExpectedKl(matrices, walk.Choices()) > kl) {
    if (!walk.Step(std::numeric_limits<uint64_t>::max())) break;
  }
  return walk.Choices();
}

uint64_t PlannedBytes(const std::vector<std::vector<PlanChoice>>& matrices,
                      const CompressionChoices& choices) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < matrices.size(); ++i) bytes += matrices[i][choices[i]].bytes;
  return bytes;
}

double ExpectedKl(const std::vector<std::vector<PlanChoice>>& matrices,
                  const CompressionChoices& choices) {
  double kl = 0;
  for (size_t i = 0; i < matrices.size(); ++i) kl += matrices[i][choices[i]].kl;
  return kl;
}

}  // namespace efedllm
