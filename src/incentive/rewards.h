// What a chunk of work pays, in integers from end to end: two who compute it get the same
// micro-credits. Work is what the coordinator itself recorded, in FLOPs of the dense reference
// model; nothing that a node says of its own time or work comes in here.
#ifndef EFEDLLM_INCENTIVE_REWARDS_H_
#define EFEDLLM_INCENTIVE_REWARDS_H_

#include <cstdint>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cluster/model_config.h"
#include "cluster/stage_plan.h"
#include "incentive/incentive_rules.h"
#include "incentive/trust.h"

namespace efedllm {

// FLOPs of the layers over positions [first_position, first_position + tokens) of one sequence.
// config: validated. Saturates.
uint64_t ChunkWorkFlops(const ModelConfig& config, LayerRange layers, uint32_t first_position,
                        uint32_t tokens);

// Everything that made a payment; goes into the ledger's entry, so that anybody can compute the
// amount again. Shares in millionths.
struct RewardFactors {
  uint64_t rules_version = 0;
  uint64_t flops = 0;
  uint64_t price_micros_per_tflop = 0;
  uint64_t promptness_ppm = kWhole;
  uint64_t availability_ppm = kWhole;
  uint64_t scarcity_ppm = kWhole;
  // Of the audit rate in force, for the penalty if it should be proven wrong. Doesn't change pay.
  uint64_t audit_rate_ppm = kWhole;

  friend bool operator==(const RewardFactors&, const RewardFactors&) = default;
};

// Micro-credits, from [0, 2^63): flops x price / 10^12 x f / 10^6, where f is the product of the
// three shares, in millionths and rounded down; the amount is rounded down once, at the end. So
// splitting work into more chunks never pays more.
int64_t RewardMicros(const RewardFactors& factors);

// Promptness and availability: the means of the evidence, from the rules' least to 1. Scarcity:
// owners[i] of different owners hold the i-th layer of the stage (0 is counted as 1, its own); a
// layer's factor falls in a line from scarcity_most at one owner to 1 at scarcity_holders, and the
// stage's is their mean, rounded down. More keys of one owner change nothing. No layers: 1.
RewardFactors MakeRewardFactors(const IncentiveRules& rules, uint64_t flops,
                                const TrustRecord& record, absl::Span<const uint32_t> owners);

nlohmann::json RewardFactorsToJson(const RewardFactors& factors);
// DataLoss: not what ToJson writes, or a number that no rules allow.
absl::StatusOr<RewardFactors> RewardFactorsFromJson(const nlohmann::json& json);

// What an API key used.
struct KeyUsage {
  uint64_t prompt_tokens = 0;  // computed; what a prefix cache knew is not
  uint64_t cached_tokens = 0;
  uint64_t generated_tokens = 0;
  uint64_t flops = 0;  // dense-reference, of all layers

  friend bool operator==(const KeyUsage&, const KeyUsage&) = default;
};
// Saturates.
KeyUsage Sum(const KeyUsage& a, const KeyUsage& b);
// flops x price / 10^12, rounded down.
int64_t ChargeMicros(const IncentiveRules& rules, const KeyUsage& usage);
nlohmann::json KeyUsageToJson(const KeyUsage& usage);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_REWARDS_H_
