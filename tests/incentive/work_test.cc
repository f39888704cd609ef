#include "incentive/work.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

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

Step StepOf(std::vector<SequenceSpan> spans) {
  Step step;
  step.spans = std::move(spans);
  return step;
}

TEST(Work, CountsALayersParameters) {
  // q and out 64 x 64, k and v 32 x 64, gate, up and down 172 x 64.
  EXPECT_EQ(LayerParameters(SomeConfig()), 2u * 64 * 64 + 2u * 32 * 64 + 3u * 172 * 64);
}

TEST(Work, CountsTheExpertsThatATokenUses) {
  ModelConfig config = SomeConfig();
  config.experts = 8;
  config.experts_used = 2;
  EXPECT_EQ(LayerParameters(config), 2u * 64 * 64 + 2u * 32 * 64 + 8u * 64 + 2u * 3 * 172 * 64);
}

TEST(Work, OneTokenIsTwiceTheParametersAndItsAttention) {
  const ModelConfig config = SomeConfig();
  EXPECT_EQ(StageWorkFlops(config, {0, 1}, StepOf({{SequenceId{1}, 9, 1}})),
            2 * LayerParameters(config) + 4u * 64 * 10);
  EXPECT_EQ(StageWorkFlops(config, {1, 4}, StepOf({{SequenceId{1}, 9, 1}})),
            3 * (2 * LayerParameters(config) + 4u * 64 * 10));
}

TEST(Work, ChunksAndBatchMatesAddUp) {
  const ModelConfig config = SomeConfig();
  const LayerRange layers{0, 4};
  const uint64_t whole = StageWorkFlops(config, layers, StepOf({{SequenceId{1}, 5, 11}}));
  uint64_t parts = 0;
  for (uint32_t i = 0; i < 11; ++i) {
    parts += StageWorkFlops(config, layers, StepOf({{SequenceId{1}, 5 + i, 1}}));
  }
  EXPECT_EQ(whole, parts);
  EXPECT_EQ(
      StageWorkFlops(config, layers, StepOf({{SequenceId{1}, 5, 11}, {SequenceId{2}, 5, 11}})),
      2 * whole);
}

TEST(Work, AStepThatOnlyReleasesIsNoWork) {
  EXPECT_EQ(StageWorkFlops(SomeConfig(), {0, 4}, StepOf({})), 0u);
}

TEST(Work, SaturatesInsteadOfOverflowing) {
  ModelConfig config = SomeConfig();
  config.heads = 4096;
  config.head_dim = 1024;
  config.d_model = 1u << 17;
  EXPECT_EQ(StageWorkFlops(config, {0, 1024}, StepOf({{SequenceId{1}, 1u << 27, 1u << 27}})),
            UINT64_MAX);
}

}  // namespace
}  // namespace efedllm
