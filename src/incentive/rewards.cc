#include "incentive/rewards.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "incentive/audit_policy.h"
#include "incentive/beta_evidence.h"
#include "incentive/work.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr uint64_t kTera = 1'000'000'000'000;
constexpr uint64_t kMostPrice = 1'000'000'000;
constexpr uint64_t kMostScarcity = 4 * kWhole;

int64_t ToMicros(__uint128_t micros) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  return micros > static_cast<__uint128_t>(kMost) ? kMost : static_cast<int64_t>(micros);
}

uint64_t SaturatingSum(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

// least + (1 - least) x mean.
uint64_t ReliabilityPpm(const BetaEvidence& evidence, uint64_t prior, uint64_t least_ppm) {
  const double mean = Mean(evidence, static_cast<double>(prior));
  const auto mean_ppm = static_cast<uint64_t>(std::floor(mean * static_cast<double>(kWhole)));
  return least_ppm + (kWhole - least_ppm) * std::min(mean_ppm, kWhole) / kWhole;
}

uint64_t ScarcityPpm(const IncentiveRules& rules, absl::Span<const uint32_t> owners) {
  if (owners.empty() || rules.scarcity_holders <= 1) return kWhole;
  const uint64_t bonus = rules.scarcity_most_ppm - kWhole;
  uint64_t sum = 0;
  for (const uint32_t holding : owners) {
    const uint64_t holders = std::max<uint64_t>(holding, 1);
    const uint64_t missing = rules.scarcity_holders - std::min(holders, rules.scarcity_holders);
    sum += bonus * missing / (rules.scarcity_holders - 1);
  }
  return kWhole + sum / owners.size();
}

}  // namespace

uint64_t ChunkWorkFlops(const ModelConfig& config, LayerRange layers, uint32_t first_position,
                        uint32_t tokens) {
  Step step;
  step.spans.push_back({SequenceId{}, first_position, tokens});
  return StageWorkFlops(config, layers, step);
}

int64_t RewardMicros(const RewardFactors& factors) {
  const uint64_t promptness = std::min(factors.promptness_ppm, kWhole);
  const uint64_t availability = std::min(factors.availability_ppm, kWhole);
  const uint64_t scarcity = std::min(factors.scarcity_ppm, kMostScarcity);
  const auto together = static_cast<uint64_t>(__uint128_t{promptness} * availability * scarcity /
                                              (__uint128_t{kWhole} * kWhole));
  // Below 2^64 x 2^30 x 2^22.
  const __uint128_t product =
      __uint128_t{factors.flops} * std::min(factors.price_micros_per_tflop, kMostPrice) * together;
  return ToMicros(product / (__uint128_t{kTera} * kWhole));
}

RewardFactors MakeRewardFactors(const IncentiveRules& rules, uint64_t flops,
                                const TrustRecord& record, absl::Span<const uint32_t> owners) {
  RewardFactors factors;
  factors.rules_version = rules.version;
  factors.flops = flops;
  factors.price_micros_per_tflop = rules.price_micros_per_tflop;
  factors.promptness_ppm =
      ReliabilityPpm(record.promptness, rules.reliability_prior, rules.promptness_least_ppm);
  factors.availability_ppm =
      ReliabilityPpm(record.availability, rules.reliability_prior, rules.availability_least_ppm);
  factors.scarcity_ppm = ScarcityPpm(rules, owners);
  factors.audit_rate_ppm = AuditRatePpm(rules, record);
  return factors;
}

json RewardFactorsToJson(const RewardFactors& factors) {
  return {{"rules_version", factors.rules_version},
          {"flops", factors.flops},
          {"price_micros_per_tflop", factors.price_micros_per_tflop},
          {"promptness_ppm", factors.promptness_ppm},
          {"availability_ppm", factors.availability_ppm},
          {"scarcity_ppm", factors.scarcity_ppm},
          {"audit_rate_ppm", factors.audit_rate_ppm}};
}

absl::StatusOr<RewardFactors> RewardFactorsFromJson(const json& json) {
  RewardFactors factors;
  struct Field {
    const char* name;
    uint64_t& value;
    uint64_t most;
  };
  const Field fields[] = {
      {"rules_version", factors.rules_version, INT32_MAX},
      {"flops", factors.flops, UINT64_MAX},
      {"price_micros_per_tflop", factors.price_micros_per_tflop, kMostPrice},
      {"promptness_ppm", factors.promptness_ppm, kWhole},
      {"availability_ppm", factors.availability_ppm, kWhole},
      {"scarcity_ppm", factors.scarcity_ppm, kMostScarcity},
      {"audit_rate_ppm", factors.audit_rate_ppm, kWhole},
  };
  if (!json.is_object() || json.size() != std::size(fields)) {
    return absl::DataLossError("factors of a reward: not an object of the known fields");
  }
  for (const Field& field : fields) {
    const auto found = json.find(field.name);
    if (found == json.end() || !found->is_number_unsigned() ||
        found->get<uint64_t>() > field.most) {
      return absl::DataLossError(absl::StrCat("factors of a reward: ", field.name,
                                              " is no whole number from 0 to ", field.most));
    }
    field.value = found->get<uint64_t>();
  }
  return factors;
}

KeyUsage Sum(const KeyUsage& a, const KeyUsage& b) {
  return {SaturatingSum(a.prompt_tokens, b.prompt_tokens),
          SaturatingSum(a.cached_tokens, b.cached_tokens),
          SaturatingSum(a.generated_tokens, b.generated_tokens), SaturatingSum(a.flops, b.flops)};
}

int64_t ChargeMicros(const IncentiveRules& rules, const KeyUsage& usage) {
  return ToMicros(__uint128_t{usage.flops} * rules.charge_micros_per_tflop / kTera);
}

json KeyUsageToJson(const KeyUsage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"cached_tokens", usage.cached_tokens},
          {"generated_tokens", usage.generated_tokens},
          {"flops", usage.flops}};
}

}  // namespace efedllm
