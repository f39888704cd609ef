#include "incentive/rewards.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "common/random.h"
#include "incentive/work.h"

namespace efedllm {
namespace {

RewardFactors Plain(uint64_t flops) {
  RewardFactors factors;
  factors.flops = flops;
  factors.price_micros_per_tflop = 1'000'000;
  return factors;
}

ModelConfig SomeConfig() {
  ModelConfig config;
  config.layers = 4;
  config.d_model = 64;
  config.heads = 8;
  config.kv_heads = 4;
  config.head_dim = 8;
  config.d_ffn = 172;
  return config;
}

TEST(Rewards, AreWorkTimesPriceTimesFactors) {
  EXPECT_EQ(RewardMicros(Plain(1'000'000'000'000)), 1'000'000);
  EXPECT_EQ(RewardMicros(Plain(400'000'000)), 400);
  RewardFactors factors = Plain(1'000'000'000'000);
  factors.promptness_ppm = 900'000;
  factors.availability_ppm = 500'000;
  factors.scarcity_ppm = 1'250'000;
  EXPECT_EQ(RewardMicros(factors), 562'500);
}

TEST(Rewards, AreRoundedDownOnce) {
  EXPECT_EQ(RewardMicros(Plain(1'999'999)), 1);
  EXPECT_EQ(RewardMicros(Plain(999'999)), 0);
}

TEST(Rewards, NoInputOverflows) {
  RewardFactors factors = Plain(UINT64_MAX);
  factors.price_micros_per_tflop = UINT64_MAX;
  factors.scarcity_ppm = factors.promptness_ppm = factors.availability_ppm = UINT64_MAX;
  EXPECT_GT(RewardMicros(factors), 0);
  EXPECT_EQ(ChargeMicros(IncentiveRules(), {0, 0, 0, UINT64_MAX}), 18'446'744'073'709);
}

// Work cut into pieces, whatever their sizes, never pays more than at once.
TEST(Rewards, SplittingWorkPaysNoMore) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    Random random(seed);
    RewardFactors factors = Plain(0);
    factors.promptness_ppm = random.Below(kWhole + 1);
    factors.availability_ppm = random.Below(kWhole + 1);
    factors.scarcity_ppm = kWhole + random.Below(250'001);
    int64_t sum = 0;
    uint64_t flops = 0;
    for (int i = 0; i < 20; ++i) {
      factors.flops = random.Below(3'000'000'000);
      flops += factors.flops;
      sum += RewardMicros(factors);
    }
    factors.flops = flops;
    EXPECT_LE(sum, RewardMicros(factors)) << "seed " << seed;
    EXPECT_GE(sum, RewardMicros(factors) - 20) << "seed " << seed;
  }
}

TEST(Rewards, ChunksOfASequenceAreTheWorkOfTheWhole) {
  const ModelConfig config = SomeConfig();
  uint64_t sum = 0;
  for (uint32_t first = 0; first < 640; first += 64) {
    sum += ChunkWorkFlops(config, {1, 3}, first, 64);
  }
  EXPECT_EQ(sum, ChunkWorkFlops(config, {1, 3}, 0, 640));
}

TEST(Rewards, FactorsFollowEvidenceAndStayAboveTheirLeast) {
  const IncentiveRules rules;
  TrustRecord record;
  const RewardFactors fresh = MakeRewardFactors(rules, 5, record, {});
  EXPECT_EQ(fresh.availability_ppm, 944'444u);
  EXPECT_EQ(fresh.audit_rate_ppm, kWhole);
  record.availability = {100'000, 0};
  record.promptness = {0, 100'000};
  const RewardFactors factors = MakeRewardFactors(rules, 5, record, {});
  EXPECT_GT(factors.availability_ppm, 999'900u);
  EXPECT_GE(factors.promptness_ppm, 500'000u);
  EXPECT_LT(factors.promptness_ppm, 500'100u);
  EXPECT_EQ(factors.rules_version, rules.version);
}

TEST(Rewards, ScarcityCountsOwnersPerLayer) {
  const IncentiveRules rules;
  const auto scarcity = [&](std::vector<uint32_t> owners) {
    return MakeRewardFactors(rules, 1, TrustRecord(), owners).scarcity_ppm;
  };
  EXPECT_EQ(scarcity({1, 1}), 1'250'000u);
  EXPECT_EQ(scarcity({0}), 1'250'000u);
  EXPECT_EQ(scarcity({2}), 1'125'000u);
  EXPECT_EQ(scarcity({1, 3}), 1'125'000u);
  EXPECT_EQ(scarcity({3, 900}), kWhole);
  EXPECT_EQ(scarcity({}), kWhole);
}

TEST(Rewards, FactorsSurviveJsonAndNothingElseIsTaken) {
  Random random(9);
  for (int i = 0; i < 200; ++i) {
    RewardFactors factors{1 + random.Below(100),    random.Next(),
                          random.Below(1'000'000),  random.Below(kWhole + 1),
                          random.Below(kWhole + 1), kWhole + random.Below(kWhole),
                          random.Below(kWhole + 1)};
    const auto json = nlohmann::json::parse(RewardFactorsToJson(factors).dump());
    ASSERT_TRUE(RewardFactorsFromJson(json).ok());
    EXPECT_EQ(*RewardFactorsFromJson(json), factors) << "seed 9, case " << i;
    for (const auto& [key, value] : json.items()) {
      nlohmann::json damaged = json;
      damaged[key] = -1;
      EXPECT_FALSE(RewardFactorsFromJson(damaged).ok()) << key;
      damaged.erase(key);
      EXPECT_FALSE(RewardFactorsFromJson(damaged).ok()) << key;
    }
  }
}

TEST(Chargeback, AddsUpAndSaturates) {
  const KeyUsage usage = Sum({1, 2, 3, 4'000'000'000'000}, {10, 20, 30, 500'000'000'000});
  EXPECT_EQ(usage, (KeyUsage{11, 22, 33, 4'500'000'000'000}));
  EXPECT_EQ(ChargeMicros(IncentiveRules(), usage), 4'500'000);
  EXPECT_EQ(Sum({UINT64_MAX, 0, 0, 0}, {1, 0, 0, 0}).prompt_tokens, UINT64_MAX);
}

}  // namespace
}  // namespace efedllm
