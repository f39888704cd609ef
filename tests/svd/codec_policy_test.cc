#include "svd/codec_policy.h"

#include <gtest/gtest.h>

#include <cmath>

namespace efedllm {
namespace {

// A basis as far as the policy looks at it.
BoundaryBasis SomeBasis(uint32_t d_model) {
  BoundaryBasis basis;
  basis.boundary = 4;
  basis.d_model = d_model;
  // 0.2 and 0.1 for a step of 1, if it went on as the square.
  basis.scalar.kl = {0.2F / 64, 0.2F / 4};
  basis.klt.kl = {0.1F / 64, 0.1F / 4};
  for (uint32_t i = 0; i < d_model; ++i) {
    basis.scalar.log_sigma.push_back(0);
    basis.klt.log_sigma.push_back(static_cast<int16_t>(64 - static_cast<int>(i)));
  }
  return basis;
}

TEST(CodecPolicy, LevelsHaveNames) {
  for (const char* name : {"lossless", "transparent", "balanced", "small", "auto"}) {
    EXPECT_EQ(CodecLevelName(CodecLevelFromName(name).value()), name);
    EXPECT_EQ(CodecRequest::FromName(name)->name(), name);
  }
  EXPECT_EQ(CodecLevelFromName("best"), std::nullopt);
  EXPECT_EQ(CodecRequest::FromName("f16")->fixed, CodecId::kF16);
  EXPECT_EQ(CodecRequest::FromName("klt"), std::nullopt);  // its step is the level's to choose
}

TEST(CodecPolicy, HopsShareABudget) {
  const BoundaryBasis basis = SomeBasis(64);
  for (const CodecLevel level :
       {CodecLevel::kTransparent, CodecLevel::kBalanced, CodecLevel::kSmall}) {
    for (const size_t hops : {size_t{1}, size_t{4}, size_t{33}}) {
      for (const CodecId codec : {CodecId::kScalar, CodecId::kKlt}) {
        const CodecSetting setting = SettingFor(level, codec, basis, hops);
        const double step = static_cast<double>(StepSize(setting.step));
        const double harm = codec == CodecId::kKlt ? 0.1 : 0.2;
        const double all = static_cast<double>(hops) * harm * step * step;
        const double used = 0.75;
        EXPECT_LE(all, 1.001 * used * KlBudget(level));
        EXPECT_GE(all, 0.9 * used * KlBudget(level)) << "and uses most of it";
      }
    }
  }
}

TEST(CodecPolicy, StepsFollowWhatWasMeasuredAtTwoOfThem) {
  CoefficientModel model;
  model.kl = {0.001F, 0.01F};  // of steps 1/8 and 1/2: slower than the square
  EXPECT_NEAR(model.StepFor(0.001), 0.125, 1e-6);
  EXPECT_NEAR(model.StepFor(0.01), 0.5, 1e-6);
  EXPECT_NEAR(model.StepFor(0.001 * std::sqrt(10.0)), 0.25, 1e-6);
  EXPECT_NEAR(model.StepFor(0.00025), 0.0625, 1e-6) << "beyond them as the square";
  EXPECT_NEAR(model.StepFor(0.04), 1, 1e-6);
  EXPECT_EQ(model.StepFor(0), 0);
  model.kl = {0, 0};  // hostile or unmeasured: finite all the same
  EXPECT_TRUE(std::isfinite(model.StepFor(0.01)));
  model.kl = {0.01F, 0.001F};  // not less at the coarser one
  EXPECT_LE(model.StepFor(0.002), 0.125);
}

TEST(CodecPolicy, ExpectsBytesAsTheEntropyOfTheCoefficients) {
  const BoundaryBasis basis = SomeBasis(256);
  EXPECT_EQ(ExpectedRowBytes({CodecId::kF32, 0}, 256, nullptr), 1024);
  EXPECT_EQ(ExpectedRowBytes({CodecId::kInt8, 0}, 256, nullptr), 272);
  // Standard deviation 1 in steps of 1/8: log2(8) + 2.05 bits each.
  EXPECT_NEAR(ExpectedRowBytes({CodecId::kScalar, 48}, 256, &basis), 256 * 5.05 / 8 + 1, 3);
}

const CodecRequest kAuto{CodecLevel::kAuto, std::nullopt};

EdgeFacts Facts(const BoundaryBasis& basis) {
  EdgeFacts facts;
  facts.d_model = 256;
  facts.hops = 3;
  facts.basis = &basis;
  facts.compute_seconds = {100e-6, 300e-6};
  facts.costs = {CodecCosts{.f32 = 0, .f16 = 1e-7, .int8 = 3e-7, .scalar = 2e-6, .klt = 6e-6},
                 CodecCosts{.f32 = 0, .f16 = 4e-7, .int8 = 6e-7, .scalar = 9e-6, .klt = 15e-6}};
  return facts;
}

TEST(CodecPolicy, ALevelIsItsSmallestCodec) {
  const BoundaryBasis basis = SomeBasis(256);
  EdgeFacts facts = Facts(basis);
  const CodecRequest request{CodecLevel::kBalanced, std::nullopt};
  EXPECT_EQ(ChooseCodec(request, facts),
            SettingFor(CodecLevel::kBalanced, CodecId::kKlt, basis, 3));
  facts.basis = nullptr;
  EXPECT_EQ(ChooseCodec(request, facts).id, CodecId::kInt8);
  EXPECT_EQ(ChooseCodec({CodecLevel::kLossless, std::nullopt}, facts).id, CodecId::kF32);
  EXPECT_EQ(ChooseCodec({CodecLevel::kLossless, CodecId::kF16}, facts).id, CodecId::kF16);
}

TEST(CodecPolicy, AutoIsLosslessWhereBytesDoNotMatter) {
  const BoundaryBasis basis = SomeBasis(256);
  EdgeFacts facts = Facts(basis);
  EXPECT_EQ(ChooseCodec(kAuto, facts).id, CodecId::kF32);  // the link was not measured
  facts.bytes_per_second = 1e9;
  EXPECT_EQ(ChooseCodec(kAuto, facts).id, CodecId::kF32);
  facts.bytes_per_second = 1e5;
  facts.same_machine = true;
  EXPECT_EQ(ChooseCodec(kAuto, facts).id, CodecId::kF32);
}

TEST(CodecPolicy, AutoCompressesMoreTheSlowerTheLink) {
  const BoundaryBasis basis = SomeBasis(256);
  EdgeFacts facts = Facts(basis);
  double last = 4096;
  for (const double mbit : {10000.0, 1000.0, 100.0, 10.0, 2.0}) {
    facts.bytes_per_second = mbit * 1e6 / 8;
    const CodecSetting setting = ChooseCodec(kAuto, facts);
    const double bytes = ExpectedRowBytes(setting, 256, &basis);
    EXPECT_LE(bytes, last) << mbit;
    last = bytes;
  }
  EXPECT_EQ(ChooseCodec(kAuto, facts), SettingFor(CodecLevel::kSmall, CodecId::kKlt, basis, 3));
}

// One codec serves both loads: at any link it is about as near as can be to the best of each.
TEST(CodecPolicy, AutoWeighsPromptsAndDecoding) {
  const BoundaryBasis basis = SomeBasis(256);
  EdgeFacts facts = Facts(basis);
  // Decoding computes so long that no codec is worth its time, and prompts are bound by the link.
  facts.compute_seconds = {20e-6, 400e-6};
  facts.costs[1].scalar = facts.costs[1].klt = 40e-6;
  facts.bytes_per_second = 10e6 / 8;
  EXPECT_TRUE(ChooseCodec(kAuto, facts).needs_basis()) << "prompts lose more without";
  facts.bytes_per_second = 100e6 / 8;
  EdgeFacts decoding = facts;
  decoding.compute_seconds[0] = decoding.compute_seconds[1];
  decoding.costs[0] = decoding.costs[1];
  EXPECT_FALSE(ChooseCodec(kAuto, decoding).needs_basis());
  // Neither load is far from its best.
  const CodecSetting both = ChooseCodec(kAuto, facts);
  EXPECT_EQ(both.id, CodecId::kInt8);
}

TEST(CodecPolicy, MeasuresBothLoads) {
  for (const EdgeLoad load : kEdgeLoads) {
    const CodecCosts costs = MeasureCodecCosts(256, nullptr, load);
    EXPECT_GT(costs.int8, 0);
    EXPECT_EQ(costs.klt, 0);
  }
}

TEST(CodecPolicy, AutoStaysWithWhatIsNearlyAsGood) {
  const BoundaryBasis basis = SomeBasis(256);
  EdgeFacts facts = Facts(basis);
  // Where f32 takes 5 % longer than the fastest: it is not chosen, but it is not left either.
  for (double rate = 200e6; rate > 1e6; rate *= 0.9) {
    facts.bytes_per_second = rate;
    const CodecSetting fresh = ChooseCodec(kAuto, facts);
    if (fresh.id == CodecId::kF32) continue;
    EXPECT_EQ(ChooseCodec(kAuto, facts, CodecSetting{CodecId::kF32, 0}).id, CodecId::kF32);
    break;
  }
  facts.bytes_per_second = 1e6;
  EXPECT_NE(ChooseCodec(kAuto, facts, CodecSetting{CodecId::kF32, 0}).id, CodecId::kF32);
  // One that was calibrated for another number of hops is none any more.
  EXPECT_NE(ChooseCodec(kAuto, facts, CodecSetting{CodecId::kKlt, 1}),
            (CodecSetting{CodecId::kKlt, 1}));
}

}  // namespace
}  // namespace efedllm
