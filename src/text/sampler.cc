#include "text/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/check.h"
#include "common/portable_math.h"

namespace efedllm {
namespace {

// What is e^64 times less likely than the best token is never drawn: a draw has 53 bits.
constexpr double kNegligible = -64;
constexpr float kLeastLogprob = -9999;
// top_p rarely keeps more; if it does, the next stretch is four times as long.
constexpr size_t kFirstStretch = 256;

// Finite, so that differences of logits are numbers.
float Sane(float logit) {
  constexpr float kMost = std::numeric_limits<float>::max();
  return std::isnan(logit) ? -kMost : std::clamp(logit, -kMost, kMost);
}

absl::Status CheckRange(absl::string_view name, float value, float low, float high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", value, "; it must be a number from ", low, " to ", high));
}

float AsLogprob(double logprob) {
  return std::max(static_cast<float>(std::max(logprob, -1e30)), kLeastLogprob);
}

// The n tokens of the highest logits, in order; of equals, the lower id first. n is small.
std::vector<int32_t> Likeliest(absl::Span<const float> logits, size_t n) {
  std::vector<int32_t> best;
  const auto logit = [&](int32_t token) { return Sane(logits[static_cast<size_t>(token)]); };
  for (size_t i = 0; i < logits.size(); ++i) {
    const int32_t token = static_cast<int32_t>(i);
    if (best.size() == n && logit(best.back()) >= logit(token)) continue;
    if (best.size() == n) best.pop_back();
    const auto place = std::upper_bound(best.begin(), best.end(), token,
                                        [&](int32_t a, int32_t b) { return logit(a) > logit(b); });
    best.insert(place, token);
  }
  return best;
}

}  // namespace

absl::Status ValidateSamplingOptions(const SamplingOptions& options) {
  if (options.top_k < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("top_k is ", options.top_k, "; it must be 0 (off) or more"));
  }
  if (!(options.repetition_penalty > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("repetition_penalty is ", options.repetition_penalty,
                     "; it must be a number above 0, and 10 at most"));
  }
  absl::Status status = CheckRange("repetition_penalty", options.repetition_penalty, 0, 10);
  status.Update(CheckRange("temperature", options.temperature, 0, 2));
  status.Update(CheckRange("top_p", options.top_p, 0, 1));
  status.Update(CheckRange("min_p", options.min_p, 0, 1));
  status.Update(CheckRange("presence_penalty", options.presence_penalty, -2, 2));
  status.Update(CheckRange("frequency_penalty", options.frequency_penalty, -2, 2));
  return status;
}

Logprobs ComputeLogprobs(absl::Span<const float> logits, int32_t token, int top) {
  CHECK(!logits.empty());
  float best = Sane(logits[0]);
  for (const float logit : logits) best = std::max(best, Sane(logit));
  const auto below_best = [&](float logit) {
    return static_cast<double>(Sane(logit)) - static_cast<double>(best);
  };
  double total = 0;
  for (const float logit : logits) {
    if (below_best(logit) > kNegligible) total += PortableExp(below_best(logit));
  }
  const double log_total = PortableLog(total);
  const auto logprob = [&](size_t i) { return AsLogprob(below_best(logits[i]) - log_total); };

  Logprobs result;
  const bool known = token >= 0 && static_cast<size_t>(token) < logits.size();
  result.chosen = known ? logprob(static_cast<size_t>(token)) : kLeastLogprob;
  if (top <= 0) return result;
  for (const int32_t likeliest : Likeliest(logits, static_cast<size_t>(top))) {
    result.top.push_back({likeliest, logprob(static_cast<size_t>(likeliest))});
  }
  return result;
}

Sampler::Sampler(const SamplingOptions& options, absl::Span<const int32_t> prompt,
                 std::vector<std::pair<int32_t, float>> bias)
    : options_(options),
      penalises_(options.presence_penalty != 0 || options.frequency_penalty != 0 ||
                 options.repetition_penalty != 1),
      bias_(std::move(bias)),
      random_(options.seed) {
  if (options.repetition_penalty == 1) return;
  std::vector<int32_t> tokens(prompt.begin(), prompt.end());
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  for (const int32_t token : tokens) seen_.push_back({token, 0});
}

int32_t Sampler::Sample(absl::Span<const float> logits) {
  CHECK(!logits.empty());
  LoadCandidates(logits);
  if (penalises_) Penalise();
  int32_t picked = 0;
  if (options_.temperature == 0) {
    const auto less = [](const Candidate& a, const Candidate& b) { return a.logit < b.logit; };
    picked = std::max_element(candidates_.begin(), candidates_.end(), less)->token;
  } else {
    KeepTopK();
    double total = Weigh();
    if (options_.top_p < 1 || options_.min_p > 0) total = KeepTopPAndMinP(total);
    // With rounding, the draw may reach the sum of all: then the last token of weight it is.
    double left = random_.Uniform() * total;
    for (const Candidate& candidate : candidates_) {
      if (candidate.weight <= 0) continue;
      picked = candidate.token;
      left -= candidate.weight;
      if (left < 0) break;
    }
  }
  if (penalises_) Remember(picked);
  return picked;
}

void Sampler::LoadCandidates(absl::Span<const float> logits) {
  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates_[i] = {static_cast<int32_t>(i), Sane(logits[i]), 0};
  }
  for (const auto& [token, bias] : bias_) {
    if (token < 0 || static_cast<size_t>(token) >= candidates_.size()) continue;
    float& logit = candidates_[static_cast<size_t>(token)].logit;
    logit = Sane(logit + bias);
  }
}

// candidates_[i] is still token i here.
void Sampler::Penalise() {
  for (const Count& count : seen_) {
    if (count.token < 0 || static_cast<size_t>(count.token) >= candidates_.size()) continue;
    float& logit = candidates_[static_cast<size_t>(count.token)].logit;
    logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    logit -= static_cast<float>(count.in_output) * options_.frequency_penalty;
    if (count.in_output > 0) logit -= options_.presence_penalty;
    logit = Sane(logit);
  }
}

void Sampler::Remember(int32_t token) {
  auto place = std::lower_bound(seen_.begin(), seen_.end(), token,
                                [](const Count& count, int32_t t) { return count.token < t; });
  if (place == seen_.end() || place->token != token) place = seen_.insert(place, {token, 0});
  ++place->in_output;
}

// The n likeliest come first, in order (ties: lower id). The rest follows in any order.
void Sampler::SortFirst(size_t n) {
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  };
  const auto end = candidates_.begin() + static_cast<ptrdiff_t>(n);
  if (n < candidates_.size()) std::nth_element(candidates_.begin(), end, candidates_.end(), before);
  std::sort(candidates_.begin(), end, before);
}

void Sampler::KeepTopK() {
  const size_t k = static_cast<size_t>(options_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  SortFirst(k);
  candidates_.resize(k);
}

// Gives each candidate its weight at the temperature, the best 1; returns their sum.
double Sampler::Weigh() {
  float best = candidates_[0].logit;
  for (const Candidate& candidate : candidates_) best = std::max(best, candidate.logit);
  const double temperature = static_cast<double>(options_.temperature);
  double total = 0;
  for (Candidate& candidate : candidates_) {
    const double below_best =
        (static_cast<double>(candidate.logit) - static_cast<double>(best)) / temperature;
    candidate.weight = below_best > kNegligible ? PortableExp(below_best) : 0;
    total += candidate.weight;
  }
  return total;
}

// Both keep a beginning of the candidates in order of likelihood; the shorter one holds. Returns
// the sum of what is kept.
double Sampler::KeepTopPAndMinP(double total) {
  const double top_p = static_cast<double>(options_.top_p);
  const double min_p = static_cast<double>(options_.min_p);  // the best candidate's weight is 1
  // All that are less likely than this have less than 1 - top_p together, so top_p drops them too.
  const double tail = (1 - top_p) * total / static_cast<double>(candidates_.size());
  std::erase_if(candidates_, [least = std::max(min_p, tail)](const Candidate& candidate) {
    return candidate.weight < least;
  });
  double sum = 0;
  size_t kept = 0;
  size_t sorted = top_p < 1 ? 0 : candidates_.size();  // min_p alone needs no order
  while (kept < candidates_.size() && (kept == 0 || top_p >= 1 || sum < top_p * total)) {
    if (kept == sorted) {
      sorted = std::min(candidates_.size(), sorted == 0 ? kFirstStretch : 4 * sorted);
      SortFirst(sorted);
    }
    sum += candidates_[kept].weight;
    ++kept;
  }
  candidates_.resize(kept);
  return sum;
}

}  // namespace efedllm
