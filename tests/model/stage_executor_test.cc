#include "model/stage_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "model/bits.h"
#include "model/stage_world.h"
#include "model/temp_dir.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

constexpr SequenceId kA{1}, kB{2}, kC{3}, kD{4};

TEST(StageExecutor, KeepsKvInPagesAndReleasesIt) {
  StageWorld world;
  EXPECT_EQ(world.executor->kv_tokens_total(), 128u);
  ASSERT_TRUE(world.Run(StepOf({{kA, 0, 3}, {kB, 0, 1}})).ok());
  EXPECT_EQ(world.executor->sequences(), 2u);
  EXPECT_EQ(world.executor->kv_tokens_used(), 128u);
  ASSERT_TRUE(world.Run(StepOf({{kA, 3, 1}}, {kB, kC})).ok());
  EXPECT_EQ(world.executor->sequences(), 1u);
  EXPECT_EQ(world.executor->kv_tokens_used(), 64u);
  ASSERT_TRUE(world.Run(StepOf({}, {kA})).ok());
  EXPECT_EQ(world.executor->sequences(), 0u);
}

TEST(StageExecutor, RefusesStepsThatAreNotValidAndKeepsItsState) {
  StageWorld world;
  ASSERT_TRUE(world.Run(StepOf({{kA, 0, 3}})).ok());
  const auto refusal = [&](const Step& step) {
    const absl::Status status = world.Run(step);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(world.executor->sequences(), 1u);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal(StepOf({{kA, 3, 0}})), HasSubstr("no tokens"));
  EXPECT_THAT(refusal(StepOf({{kA, 3, 1}, {kA, 4, 1}})), HasSubstr("twice"));
  EXPECT_THAT(refusal(StepOf({{kB, 0, 101}})), HasSubstr("101 tokens"));
  EXPECT_THAT(refusal(StepOf({{kA, 3, 118}})), HasSubstr("context has 120"));
  EXPECT_THAT(refusal(StepOf({{kA, 1, 1}, {kB, 0, 1}, {kC, 0, 1}, {kD, 0, 1}})),
              HasSubstr("4 sequences"));
  EXPECT_THAT(refusal(StepOf({}, {kB, kB, kB, kB, kB})), HasSubstr("5 trims"));
  Step trimmed = StepOf({{kA, 1, 1}});
  trimmed.trims = {{kA, 2}};
  EXPECT_THAT(refusal(trimmed), HasSubstr("trimmed to more than where it goes on"));
  refusal(StepOf({{kB, 0, 1}, {kA, 4, 1}}));  // a gap in kA: kB must not be made either
  refusal(StepOf({{kB, 1, 1}}));              // kB has no position 0
}

TEST(StageExecutor, AForkGivesTheBitsOfASequenceThatWasComputed) {
  StageWorld world;
  const SequenceSpan prompt{kA, 0, 60};
  ASSERT_TRUE(world.Run(StepOf({prompt})).ok());
  // The activations depend on the sequence's number, so the child is computed as kA, elsewhere.
  StageWorld alone;
  ASSERT_TRUE(alone.Run(StepOf({{kA, 0, 57}})).ok());
  Step fork = StepOf({{kB, 57, 3}});
  fork.forks = {{kB, kA, 57}};
  Matrix hidden = world.Hidden(StepOf({{kA, 57, 3}}));
  Matrix expected = alone.Hidden(StepOf({{kA, 57, 3}}));
  ASSERT_TRUE(world.executor->Run(fork, hidden.ref()).ok());
  ASSERT_TRUE(alone.executor->Run(StepOf({{kA, 57, 3}}), expected.ref()).ok());
  EXPECT_THAT(hidden.ref().span(), testing::ElementsAreArray(expected.ref().span()));
}

TEST(StageExecutor, TrimsComeBeforeForksAndForksBeforeSpans) {
  StageWorld world;
  ASSERT_TRUE(world.Run(StepOf({{kA, 0, 64}, {kB, 0, 5}})).ok());
  Step step = StepOf({{kA, 40, 1}, {kB, 64, 1}});
  step.trims = {{kB, 0}, {kD, 3}};
  step.forks = {{kC, kA, 64}, {kB, kC, 64}};
  // kA goes back into the page that it shares: three pages of two.
  EXPECT_EQ(world.Run(step).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(world.executor->sequences(), 3u);  // trims and forks have happened
  EXPECT_EQ(world.executor->kv_tokens_used(), 64u);
  ASSERT_TRUE(world.Run(StepOf({{kB, 64, 1}})).ok());
  EXPECT_EQ(world.executor->kv_tokens_used(), 128u);
  step.trims.clear();
  EXPECT_EQ(world.Run(step).code(), absl::StatusCode::kInvalidArgument);  // kC holds KV
}

TEST(StageExecutor, PositionsNearTheEndOf32BitsDoNotOverflow) {
  StageWorld world;
  Step step = StepOf({{kA, std::numeric_limits<uint32_t>::max(), 2}});
  Matrix hidden(2, 32);
  EXPECT_EQ(world.executor->Run(step, hidden.ref()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(StageExecutor, RefusesActivationsOfAnotherShapeOrNotFinite) {
  StageWorld world;
  const Step step = StepOf({{kA, 0, 2}});
  for (auto [rows, cols] : {std::pair{1, 32}, std::pair{3, 32}, std::pair{2, 31}}) {
    Matrix hidden(static_cast<size_t>(rows), static_cast<size_t>(cols));
    EXPECT_FALSE(world.executor->Run(step, hidden.ref()).ok());
  }
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    Matrix hidden = world.Hidden(step);
    hidden.row(1)[31] = bad;
    const absl::Status status = world.executor->Run(step, hidden.ref());
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);  // it is the sender's fault
    EXPECT_THAT(std::string(status.message()), HasSubstr("row 1, dimension 31 is not finite"));
  }
  EXPECT_EQ(world.executor->sequences(), 0u);
}

TEST(StageExecutor, AStepThatFindsNoRoomChangesNothing) {
  StageWorld world;
  ASSERT_TRUE(world.Run(StepOf({{kA, 0, 60}})).ok());
  EXPECT_EQ(world.Run(StepOf({{kA, 60, 10}, {kB, 0, 1}})).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(world.executor->sequences(), 1u);
  EXPECT_EQ(world.executor->kv_tokens_used(), 64u);

  StageWorld undisturbed;
  ASSERT_TRUE(undisturbed.Run(StepOf({{kA, 0, 60}})).ok());
  EXPECT_EQ(world.LastRow(StepOf({{kA, 60, 10}})), undisturbed.LastRow(StepOf({{kA, 60, 10}})));
}

TEST(StageExecutor, AnEarlierPositionDropsTheKvBehindIt) {
  StageWorld world;
  ASSERT_TRUE(world.Run(StepOf({{kA, 0, 70}})).ok());
  const std::vector<float> again = world.LastRow(StepOf({{kA, 5, 3}}));
  EXPECT_EQ(world.executor->kv_tokens_used(), 64u);
  StageWorld fresh;
  EXPECT_EQ(again, fresh.LastRow(StepOf({{kA, 0, 8}})));
}

TEST(StageExecutor, StagesInAChainGiveWhatOneGives) {
  TinyLlama model;
  model.rope_freqs = true;
  StageWorld whole(model), first(model, {0, 1}), second(model, {1, 2});
  const Step step = StepOf({{kA, 0, 9}, {kB, 0, 2}});
  Matrix expected = whole.Hidden(step), hidden = whole.Hidden(step);
  ASSERT_TRUE(whole.executor->Run(step, expected.ref()).ok());
  ASSERT_TRUE(first.executor->Run(step, hidden.ref()).ok());
  ASSERT_TRUE(second.executor->Run(step, hidden.ref()).ok());
  EXPECT_EQ(BitsOf(expected.ref().span()), BitsOf(hidden.ref().span()));
}

TEST(StageExecutor, SelfTestLeavesNothingBehindAndSeesDamagedWeights) {
  StageWorld world;
  EXPECT_TRUE(world.executor->SelfTest().ok());
  EXPECT_EQ(world.executor->sequences(), 0u);
  EXPECT_EQ(world.executor->kv_tokens_used(), 0u);

  for (StageTensor& tensor : world.tensors) {
    if (tensor.spec.name != "blk.1.ffn_norm.weight") continue;
    std::string nans;
    for (int i = 0; i < 32; ++i) {
      GgufBuilder::Put(nans, std::numeric_limits<float>::quiet_NaN());
    }
    tensor.data = *PackedTensor::FromGguf(tensor.spec, BytesOf(nans));
  }
  const auto damaged = StageExecutor::Create(world.options, world.tensors, world.compute);
  ASSERT_TRUE(damaged.ok());
  EXPECT_EQ((*damaged)->SelfTest().code(), absl::StatusCode::kInternal);
}

TEST(StageExecutor, CreateRefusesTensorsThatDoNotFit) {
  StageWorld world;
  const auto refusal = [&](auto change) {
    StageOptions options = world.options;
    std::vector<StageTensor> tensors = world.tensors;
    change(options, tensors);
    const auto executor = StageExecutor::Create(options, tensors, world.compute);
    EXPECT_FALSE(executor.ok());
    return std::string(executor.status().message());
  };
  using Tensors = std::vector<StageTensor>;
  EXPECT_THAT(refusal([](StageOptions&, Tensors& t) { t.pop_back(); }), HasSubstr("missing"));
  EXPECT_THAT(refusal([](StageOptions&, Tensors& t) { t[1].data = t[0].data; }),
              HasSubstr("blk.0.attn_q.weight"));
  EXPECT_THAT(refusal([](StageOptions&, Tensors& t) { t[1].data = nullptr; }),
              HasSubstr("blk.0.attn_q.weight"));
  refusal([](StageOptions& o, Tensors&) { o.layers = {1, 5}; });
  refusal([](StageOptions& o, Tensors&) { o.config.heads = 0; });
  refusal([](StageOptions& o, Tensors&) { o.kv_tokens = 0; });
  refusal([](StageOptions& o, Tensors&) { o.kv_tokens = ~uint64_t{0}; });
}

TEST(StageExecutor, RefusesRopeFactorsThatDivideByZero) {
  TinyLlama model;
  model.rope_freqs = true;
  StageWorld world(model);
  TensorSpec& spec = world.tensors[0].spec;
  ASSERT_EQ(spec.name, "rope_freqs.weight");
  world.tensors[0].data = *PackedTensor::FromGguf(spec, BytesOf(std::string(16, '\0')));
  const auto executor = StageExecutor::Create(world.options, world.tensors, world.compute);
  EXPECT_THAT(std::string(executor.status().message()), HasSubstr("a factor of RoPE is 0"));
}

TEST(StageExecutor, WeightsFromTheCacheGiveTheSameBits) {
  StageWorld world;
  TempDir dir;
  auto cache = *WeightCache::Open(dir.path());
  auto hasher = *TensorHasher::Create(world.file, "");
  for (int restart = 0; restart < 2; ++restart) {  // packs and keeps, then maps what is there
    const auto tensors = LoadStageTensors(world.options.config, world.file, {0, 2},
                                          {.cache = cache.get(), .hasher = hasher.get()});
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    ASSERT_TRUE(KeepTensors(*tensors, *cache, *hasher, [] { return false; }).ok());
    auto executor = *StageExecutor::Create(world.options, *tensors, world.compute);
    Matrix hidden = world.Hidden(StepOf({{kA, 0, 5}}));
    ASSERT_TRUE(executor->Run(StepOf({{kA, 0, 5}}), hidden.ref()).ok());
    StageWorld other;
    EXPECT_EQ(std::vector<float>(hidden.row(4), hidden.row(4) + 32),
              other.LastRow(StepOf({{kA, 0, 5}})));
  }
  EXPECT_EQ(dir.Ending(".packed").size(), 18u);
}

TEST(StageExecutor, KvBytesAreTwoFloatsPerHeadDimension) {
  const ModelConfig config = StageWorld().options.config;
  EXPECT_EQ(KvBytesPerToken(config, KvType::kF32), 2u * 2 * 8 * 4);
  EXPECT_EQ(StageKvBytesPerToken(config, KvType::kF16, 5, false), 5u * 2 * 2 * 8 * 2);
  EXPECT_EQ(StageKvBytesPerToken(config, KvType::kF16, 5, true), 5u * 2 * 2 * 8 * 2 + 32 * 4);
}

}  // namespace
}  // namespace efedllm
