// What lets a stream outlive its stages: KV that moves, and KV that a replay brings back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "model/bits.h"
#include "model/stage_world.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr SequenceId kA{1}, kB{2}, kC{3};

TinyLlama WideHeads() {
  TinyLlama model;
  model.head_dim = 32;  // what Q8_0's blocks divide
  model.d_model = 4 * 32;
  return model;
}

// A stage of the chain below; the first one keeps its outputs.
struct World : StageWorld {
  World(LayerRange layers, KvType type, bool keep_outputs) : StageWorld(WideHeads(), layers) {
    options.kv_tokens = 512;
    options.limits.max_position = 128;
    options.kv_type = type;
    options.keep_outputs = keep_outputs;
    executor = Create();
  }
};

// Two stages behind each other.
struct Chain {
  explicit Chain(KvType type) : first({0, 1}, type, true), second({1, 2}, type, false) {}

  // The bits of what comes out of the second stage.
  std::vector<uint32_t> Run(const Step& step) {
    Matrix hidden = first.Hidden(step);
    EXPECT_TRUE(first.executor->Run(step, hidden.ref()).ok());
    const absl::Status ran = second.executor->Run(step, hidden.ref());
    EXPECT_TRUE(ran.ok()) << ran;
    return BitsOf(hidden.ref().span());
  }

  World first, second;
};

// Forks, cuts, sequences of several pages and parts of pages.
void Live(Chain& chain) {
  chain.Run(StepOf({{kA, 0, 70}, {kB, 0, 5}}));
  chain.Run(StepOf({{kA, 70, 20}, {kB, 5, 1}}));
  Step fork = StepOf({{kC, 66, 3}, {kA, 80, 2}});
  fork.forks = {{kC, kA, 66}};
  chain.Run(fork);
  chain.Run(StepOf({{kA, 60, 9}, {kB, 3, 2}}));
}

const std::vector<KvExtent> kLived = {{kA, 69}, {kB, 5}, {kC, 69}};

// One more token of each sequence, and then a few.
void ExpectSameFuture(Chain& chain, Chain& uninterrupted) {
  for (const uint32_t tokens : {1u, 4u}) {
    Step step;
    for (const KvExtent& extent : chain.first.executor->extents()) {
      step.spans.push_back({extent.sequence, extent.length, tokens});
    }
    EXPECT_EQ(chain.Run(step), uninterrupted.Run(step));
  }
  EXPECT_EQ(chain.second.executor->extents(), uninterrupted.second.executor->extents());
}

class Failover : public ::testing::TestWithParam<KvType> {
 protected:
  void SetUp() override {
    Live(uninterrupted_);
    Live(chain_);
    ASSERT_EQ(chain_.second.executor->extents(), kLived);
  }

  Chain uninterrupted_{GetParam()}, chain_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(EveryKvType, Failover,
                         ::testing::Values(KvType::kF32, KvType::kF16, KvType::kQ8_0),
                         [](const auto& info) { return std::string(KvTypeName(info.param)); });

// In pieces that begin and end anywhere.
void MoveKv(World& world, uint32_t piece) {
  std::unique_ptr<StageExecutor> other = world.Create();
  const uint64_t per_token = StageKvBytesPerToken(world.options.config, world.options.kv_type, 1,
                                                  world.options.keep_outputs);
  std::string bytes;
  for (const KvExtent& extent : world.executor->extents()) {
    for (uint32_t at = 0; at < extent.length; at += piece) {
      const uint32_t tokens = std::min(piece, extent.length - at);
      bytes.clear();
      ASSERT_TRUE(world.executor->ExportKv(extent.sequence, at, tokens, bytes).ok());
      ASSERT_EQ(bytes.size(), tokens * per_token);
      ASSERT_TRUE(other->ImportKv(extent.sequence, at, tokens, bytes).ok());
    }
  }
  EXPECT_EQ(other->extents(), world.executor->extents());
  world.executor = std::move(other);
}

TEST_P(Failover, AStageGoesOnWithKvThatMovedAsIfItHadNot) {
  for (const uint32_t piece : {64u, 128u, 13u, 1u}) {
    MoveKv(chain_.first, piece);
    MoveKv(chain_.second, piece);
  }
  ExpectSameFuture(chain_, uninterrupted_);
}

// The step of a replay that brings back [first, first + tokens) of a sequence on the second stage.
Step ReplayOf(SequenceId sequence, uint32_t first, uint32_t tokens) {
  Step step = StepOf({{sequence, first, tokens}});
  step.replay_stages = {1};
  return step;
}

void ReplaySecond(Chain& chain, uint32_t chunk) {
  chain.second.executor = chain.second.Create();
  Step begin;
  begin.forget_others = true;
  for (const KvExtent& extent : kLived) begin.trims.push_back({extent.sequence, extent.length});
  ASSERT_EQ(chain.Run(begin), std::vector<uint32_t>());
  for (const KvExtent& extent : kLived) {
    for (uint32_t at = 0; at < extent.length; at += chunk) {
      const Step step = ReplayOf(extent.sequence, at, std::min(chunk, extent.length - at));
      Matrix hidden(step.tokens(), chain.first.options.config.d_model);
      ASSERT_TRUE(chain.first.executor->Recall(step, hidden.ref()).ok());
      ASSERT_TRUE(chain.second.executor->Run(step, hidden.ref()).ok());
    }
  }
}

TEST_P(Failover, AReplayFromKeptOutputsBringsALostStageBack) {
  for (const uint32_t chunk : {100u, 7u, 64u}) ReplaySecond(chain_, chunk);
  ExpectSameFuture(chain_, uninterrupted_);
}

TEST_P(Failover, KeptOutputsMoveWithTheKv) {
  MoveKv(chain_.first, 31);
  ReplaySecond(chain_, 50);
  ExpectSameFuture(chain_, uninterrupted_);
}

TEST(StageFailover, ForgetsWhatNoTrimNames) {
  Chain chain(KvType::kF32);
  Live(chain);
  Step step;
  step.forget_others = true;
  step.trims = {{kB, 4}, {kC, 100}, {SequenceId{77}, 9}};
  chain.Run(step);
  EXPECT_THAT(chain.first.executor->extents(), ElementsAre(KvExtent{kB, 4}, KvExtent{kC, 69}));
  step.trims.clear();
  step.spans = {{kA, 0, 1}};
  chain.Run(step);
  EXPECT_THAT(chain.first.executor->extents(), ElementsAre(KvExtent{kA, 1}));
}

TEST(StageFailover, AReplaysFirstStepMayCutBehindWhereItBegins) {
  Chain chain(KvType::kF32);
  Live(chain);
  Step step = ReplayOf(kA, 0, 30);
  step.trims = {{kA, 60}};
  Matrix hidden(30, chain.first.options.config.d_model);
  ASSERT_TRUE(chain.first.executor->Recall(step, hidden.ref()).ok());
  EXPECT_EQ(chain.first.executor->extents()[0].length, 60u);
  ASSERT_TRUE(chain.second.executor->Run(step, hidden.ref()).ok());
  EXPECT_EQ(chain.second.executor->extents()[0].length, 30u);
}

TEST(StageFailover, AReplayedForkHappensOnlyWhereItIsMissing) {
  Chain chain(KvType::kF32);
  Live(chain);
  Step step = ReplayOf(kC, 66, 3);
  step.forks = {{kC, kA, 66}, {SequenceId{9}, kA, 10}};
  ASSERT_TRUE(chain.first.executor->Recall(step, Matrix(0, 128).ref()).ok());
  EXPECT_EQ(chain.first.executor->extents()[2], (KvExtent{kC, 69}));
  EXPECT_EQ(chain.first.executor->extents()[3], (KvExtent{SequenceId{9}, 10}));
}

TEST(StageFailover, RecallSaysWhatItDoesNotHave) {
  Chain chain(KvType::kF32);
  Live(chain);
  const size_t d_model = chain.first.options.config.d_model;
  const auto recall = [&](StageExecutor& executor, const Step& step, size_t rows) {
    Matrix hidden(rows, d_model);
    return executor.Recall(step, hidden.ref());
  };
  // The second stage keeps no outputs: it can pass over, but not send.
  EXPECT_TRUE(recall(*chain.second.executor, ReplayOf(kA, 0, 9), 0).ok());
  EXPECT_EQ(recall(*chain.second.executor, ReplayOf(kA, 0, 9), 9).code(),
            absl::StatusCode::kFailedPrecondition);
  for (const size_t rows : {size_t{0}, size_t{9}}) {
    const absl::Status beyond = recall(*chain.first.executor, ReplayOf(kA, 61, 9), rows);
    EXPECT_EQ(beyond.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(beyond.message()), HasSubstr("up to position 69"));
  }
  EXPECT_EQ(recall(*chain.first.executor, ReplayOf(kA, 0, 9), 8).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(recall(*chain.first.executor, ReplayOf(kA, 0, 0), 0).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(StageFailover, RefusesKvThatDoesNotFit) {
  World world({0, 1}, KvType::kF16, true);
  ASSERT_TRUE(world.Run(StepOf({{kA, 0, 70}})).ok());
  std::string bytes;
  EXPECT_EQ(world.executor->ExportKv(kA, 0, 71, bytes).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(world.executor->ExportKv(kB, 0, 1, bytes).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(world.executor->ExportKv(kA, UINT32_MAX, 2, bytes).code(),
            absl::StatusCode::kOutOfRange);
  ASSERT_TRUE(world.executor->ExportKv(kA, 0, 70, bytes).ok());

  world.options.kv_tokens = 64;
  const std::unique_ptr<StageExecutor> small = world.Create();
  const auto refusal = [&](uint32_t first, uint32_t tokens, absl::string_view from) {
    const absl::Status status = small->ImportKv(kA, first, tokens, from);
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(small->sequences(), 0u);
    return status.code();
  };
  EXPECT_EQ(refusal(0, 70, bytes), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refusal(0, 69, bytes), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(1, 70, bytes), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(0, 0, ""), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(0, 129, std::string(bytes.size() / 70 * 129, 'x')),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(UINT32_MAX, 2, bytes), absl::StatusCode::kInvalidArgument);
  // Any bytes of the right size are taken, and stay their own sequence's.
  const std::string noise(bytes.size() / 70 * 64, '\xff');
  ASSERT_TRUE(small->ImportKv(kA, 0, 64, noise).ok());
  std::string again;
  ASSERT_TRUE(small->ExportKv(kA, 0, 64, again).ok());
  EXPECT_EQ(again, noise);
}

TEST(StageFailover, WhatBadKvLeavesInItsPagesReachesNoOtherSequence) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
    World world({0, 1}, type, true);
    const uint64_t per_token = StageKvBytesPerToken(world.options.config, type, 1, true);
    const std::string nans(per_token * 128, '\xff');
    for (uint64_t id = 10; id < 14; ++id) {
      ASSERT_TRUE(world.executor->ImportKv(SequenceId{id}, 0, 128, nans).ok());
    }
    Step step = StepOf({{kA, 0, 70}});
    step.forget_others = true;
    World fresh({0, 1}, type, true);
    EXPECT_EQ(world.LastRow(step), fresh.LastRow(step));
  }
}

}  // namespace
}  // namespace efedllm
