#include "worker/stage_slots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/stage_world.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr SequenceId kSequence{1};

class StageSlotsTest : public ::testing::Test {
 protected:
  void Prepare(const Assignment& assignment) { Prepare(slots_, assignment); }
  void Prepare(StageSlots& slots, const Assignment& assignment) {
    slots.Prepare(world_.MakeStage(assignment, slots));
  }
  std::optional<StepFrame> Pass(const Step& step) {
    return world_.Pass(slots_, world_.Frame(step));
  }

  // Epoch 1 has run positions [0, 10) of the sequence.
  void RunEpochOne(LayerRange layers = {0, 4}) {
    Prepare(world_.MakeAssignment(1, layers));
    ASSERT_TRUE(Pass(MakeStep(1, 1, {{kSequence, 0, 8}})));
    ASSERT_TRUE(Pass(MakeStep(1, 2, {{kSequence, 8, 2}})));
  }
  // What a stage that lost nothing makes of position 10.
  Matrix PositionTen(LayerRange layers = {0, 4}) {
    const auto executor = world_.MakeExecutor(world_.MakeAssignment(1, layers));
    Matrix before = world_.SomeHidden(10);
    EXPECT_TRUE(executor->Run(MakeStep(1, 1, {{kSequence, 0, 10}}), before.ref()).ok());
    Matrix hidden = world_.SomeHidden(1, 10);
    EXPECT_TRUE(executor->Run(MakeStep(1, 2, {{kSequence, 10, 1}}), hidden.ref()).ok());
    return hidden;
  }
  void ExpectPositionTen(const std::optional<StepFrame>& out, LayerRange layers = {0, 4}) {
    ASSERT_TRUE(out);
    ASSERT_TRUE(out->failure.ok()) << out->failure;
    EXPECT_THAT(out->hidden.ref().span(), ElementsAreArray(PositionTen(layers).ref().span()));
  }

  StageWorld world_;
  StageSlots slots_;
};

TEST_F(StageSlotsTest, TheRunningStageGoesOnBesideThePreparedOne) {
  RunEpochOne();
  Prepare(world_.MakeAssignment(2));
  ExpectPositionTen(Pass(MakeStep(1, 3, {{kSequence, 10, 1}})));
  EXPECT_EQ(slots_.running()->epoch(), Epoch{1});
}

TEST_F(StageSlotsTest, TheFirstFrameOfThePreparedEpochMakesItTheRunningOne) {
  RunEpochOne();
  Prepare(world_.MakeAssignment(2));
  const auto old = slots_.running();
  ASSERT_TRUE(Pass(MakeStep(2, 1, {{kSequence, 0, 1}})));
  EXPECT_EQ(slots_.running()->epoch(), Epoch{2});
  EXPECT_EQ(slots_.prepared(), nullptr);
  EXPECT_EQ(old->life(), StageLife::kEnded);
  EXPECT_THAT(slots_.TakeEnded(), ElementsAre(old));
  EXPECT_FALSE(Pass(MakeStep(1, 3, {{kSequence, 10, 1}}))) << "a late frame of the old epoch";
}

TEST_F(StageSlotsTest, AFrameOfAnotherNodeActivatesNothing) {
  RunEpochOne();
  Prepare(world_.MakeAssignment(2));
  HopFrame frame = world_.Frame(MakeStep(2, 1, {{kSequence, 0, 1}}));
  frame.peer = NodeId{8};
  EXPECT_FALSE(world_.Pass(slots_, frame));
  EXPECT_EQ(slots_.running()->epoch(), Epoch{1});
}

TEST_F(StageSlotsTest, AStageThatContinuesAnEpochHasItsKv) {
  RunEpochOne();
  const Assignment next = world_.MakeAssignment(2, {0, 4}, 1);
  ASSERT_TRUE(slots_.CanContinue(next));
  Prepare(next);
  Step step = MakeStep(2, 1, {{kSequence, 10, 1}});
  step.trims = {{kSequence, 10}};
  step.forget_others = true;
  ExpectPositionTen(Pass(step));
}

TEST_F(StageSlotsTest, AHaltedStageRunsNothingAndItsKvIsAdopted) {
  RunEpochOne();
  absl::Status why;
  EXPECT_FALSE(world_.Pass(slots_, world_.Frame(MakeStep(1, 4, {{kSequence, 10, 1}})), &why));
  EXPECT_THAT(std::string(why.message()), HasSubstr("step 4 came after step 2"));
  EXPECT_FALSE(Pass(MakeStep(1, 3, {{kSequence, 10, 1}})));
  EXPECT_THAT(slots_.upstreams(), ElementsAre(kUpstream));
  const Assignment next = world_.MakeAssignment(2, {0, 4}, 1);
  ASSERT_TRUE(slots_.CanContinue(next));
  Prepare(next);
  ExpectPositionTen(Pass(MakeStep(2, 1, {{kSequence, 10, 1}})));
}

TEST_F(StageSlotsTest, LineageReachesBackOverEpochsThatNeverServed) {
  RunEpochOne();
  Prepare(world_.MakeAssignment(2, {0, 4}, 1));
  ASSERT_TRUE(Pass(MakeStep(2, 1, {})));
  Prepare(world_.MakeAssignment(3, {0, 4}, 1));
  ASSERT_TRUE(Pass(MakeStep(3, 1, {})));
  Prepare(world_.MakeAssignment(4, {0, 4}, 1));
  ExpectPositionTen(Pass(MakeStep(4, 1, {{kSequence, 10, 1}})));
}

TEST_F(StageSlotsTest, OtherKvIsNotContinued) {
  RunEpochOne();
  EXPECT_FALSE(slots_.CanContinue(world_.MakeAssignment(2, {0, 4}, 0)));
  EXPECT_FALSE(slots_.CanContinue(world_.MakeAssignment(9, {0, 4}, 8)));
  EXPECT_FALSE(slots_.CanContinue(world_.MakeAssignment(2, {0, 3}, 1)));
  Assignment other = world_.MakeAssignment(2, {0, 4}, 1);
  other.tensors[0].chunks[0][0] ^= 1;
  EXPECT_FALSE(slots_.CanContinue(other)) << "other weights";
  other = world_.MakeAssignment(2, {0, 4}, 1);
  other.kv_tokens = 1024;
  EXPECT_FALSE(slots_.CanContinue(other));
  other = world_.MakeAssignment(2, {0, 4}, 1);
  other.limits.max_tokens = 32;
  EXPECT_FALSE(slots_.CanContinue(other));
  Prepare(world_.MakeAssignment(2, {0, 4}, 0));
  ASSERT_TRUE(Pass(MakeStep(2, 1, {})));
  EXPECT_FALSE(slots_.CanContinue(world_.MakeAssignment(3, {0, 4}, 1))) << "its KV went with it";
}

TEST_F(StageSlotsTest, TheFirstStepOfAnEpochCantBeMissed) {
  RunEpochOne();
  Prepare(world_.MakeAssignment(2, {0, 4}, 1));
  absl::Status why;
  EXPECT_FALSE(world_.Pass(slots_, world_.Frame(MakeStep(2, 2, {{kSequence, 10, 1}})), &why));
  EXPECT_FALSE(why.ok());
  EXPECT_EQ(slots_.running()->epoch(), Epoch{1}) << "what is wrong activates nothing";
}

TEST_F(StageSlotsTest, GarbageIsTheUpstreamsFaultAndHaltsItsStage) {
  RunEpochOne();
  const grpc::Slice garbage(std::string(3000, '\xee'));
  absl::Status why;
  EXPECT_FALSE(world_.Pass(slots_, {kUpstream, {}, grpc::ByteBuffer(&garbage, 1)}, &why));
  EXPECT_FALSE(why.ok());
  EXPECT_EQ(slots_.running()->life(), StageLife::kHalted);
}

TEST_F(StageSlotsTest, AKeptStageRecallsItsOutputsForTheOneBehindItAndElseNothing) {
  RunEpochOne();
  Prepare(world_.MakeAssignment(2, {0, 4}, 1));
  Step replay = MakeStep(2, 1, {{kSequence, 0, 10}});
  replay.replay_stages = {1};
  const auto recalled =
      world_.Pass(slots_, world_.Frame(replay, Matrix(0, world_.config().d_model)));
  ASSERT_TRUE(recalled);
  ASSERT_TRUE(recalled->failure.ok()) << recalled->failure;
  const auto executor = world_.MakeExecutor(world_.MakeAssignment(1));
  Matrix sent = world_.SomeHidden(10);
  ASSERT_TRUE(executor->Run(MakeStep(1, 1, {{kSequence, 0, 10}}), sent.ref()).ok());
  EXPECT_THAT(recalled->hidden.ref().span(), ElementsAreArray(sent.ref().span()));

  replay.id = StepId{2};
  replay.replay_stages = {3};
  const auto nothing =
      world_.Pass(slots_, world_.Frame(replay, Matrix(0, world_.config().d_model)));
  ASSERT_TRUE(nothing);
  EXPECT_TRUE(nothing->failure.ok()) << nothing->failure;
  EXPECT_EQ(nothing->hidden.rows(), 0u);
  ExpectPositionTen(Pass(MakeStep(2, 3, {{kSequence, 10, 1}})));
}

// So the one that takes over gets what the lost one had got, also where it is coded with loss.
TEST_F(StageSlotsTest, AKeptStageCodesWhatItRecallsAsItDidBefore) {
  Assignment first = world_.MakeAssignment(1, {0, 4});
  first.codec = {CodecId::kInt8, 0};
  Prepare(first);
  const auto sent = Pass(MakeStep(1, 1, {{kSequence, 0, 10}}));
  ASSERT_TRUE(sent);
  Assignment second = world_.MakeAssignment(2, {0, 4}, 1);
  second.codec = first.codec;
  Prepare(second);
  Step replay = MakeStep(2, 1, {{kSequence, 0, 10}});
  replay.replay_stages = {1};
  const auto recalled =
      world_.Pass(slots_, world_.Frame(replay, Matrix(0, world_.config().d_model)));
  ASSERT_TRUE(recalled);
  EXPECT_EQ(recalled->codec.id, CodecId::kInt8);
  EXPECT_THAT(recalled->hidden.ref().span(), ElementsAreArray(sent->hidden.ref().span()));
}

TEST_F(StageSlotsTest, ALostStageComputesTheReplay) {
  Prepare(world_.MakeAssignment(2, {0, 4}, 1));  // there is no KV of epoch 1 here
  Step replay = MakeStep(2, 1, {{kSequence, 0, 10}});
  replay.replay_stages = {0};
  const auto replayed = Pass(replay);
  ASSERT_TRUE(replayed);
  EXPECT_TRUE(replayed->failure.ok()) << replayed->failure;
  EXPECT_EQ(replayed->hidden.rows(), 0u) << "nobody reads them";
  ExpectPositionTen(Pass(MakeStep(2, 2, {{kSequence, 10, 1}})));
}

TEST_F(StageSlotsTest, KvThatIsHandedOverGoesOnBitForBit) {
  RunEpochOne();
  const Epoch next{2};
  StageSlots other;
  Prepare(other, world_.MakeAssignment(2, {0, 4}, 1));
  const std::vector<KvExtent> extents = slots_.running()->executor()->extents();
  ASSERT_EQ(extents.size(), 1u);
  uint32_t first = 0;
  EXPECT_FALSE(slots_.Export(Epoch{1}, next, extents[0], first).ok()) << "it still runs";
  ASSERT_TRUE(slots_.Halt(*slots_.running()));
  while (first < extents[0].length) {
    const auto frame = slots_.Export(Epoch{1}, next, extents[0], first);
    ASSERT_TRUE(frame.ok()) << frame.status();
    ASSERT_TRUE(other.Import(*frame).ok());
  }
  ASSERT_TRUE(other.FinishImport(next).ok());
  ExpectPositionTen(world_.Pass(other, world_.Frame(MakeStep(2, 1, {{kSequence, 10, 1}}))));
  EXPECT_TRUE(other.CanContinue(world_.MakeAssignment(3, {0, 4}, 1)));
}

TEST_F(StageSlotsTest, KvIsTakenForThePreparedEpochAlone) {
  RunEpochOne();
  ASSERT_TRUE(slots_.Halt(*slots_.running()));
  uint32_t first = 0;
  const auto frame = *slots_.Export(Epoch{1}, Epoch{2}, {kSequence, 10}, first);
  StageSlots other;
  EXPECT_FALSE(other.Import(frame).ok());
  EXPECT_FALSE(other.FinishImport(Epoch{2}).ok());
  Prepare(other, world_.MakeAssignment(3, {0, 4}, 1));
  EXPECT_FALSE(other.Import(frame).ok());
  Prepare(other, world_.MakeAssignment(2, {0, 4}, 0));
  EXPECT_FALSE(other.Import(frame).ok()) << "it begins anew";
  Prepare(other, world_.MakeAssignment(2, {0, 2}, 1));
  EXPECT_FALSE(other.Import(frame).ok()) << "other layers";
}

TEST_F(StageSlotsTest, WeightsOfBothStagesCountOnce) {
  const Assignment first = world_.MakeAssignment(1);
  const uint64_t alone = slots_.BytesBeside(first);
  RunEpochOne();
  const uint64_t both = slots_.BytesBeside(world_.MakeAssignment(2));
  EXPECT_GT(both, alone);
  EXPECT_LT(both, 2 * alone);
}

TEST_F(StageSlotsTest, ReleaseEndsBothAndTakesNothingMore) {
  RunEpochOne();
  Prepare(world_.MakeAssignment(2, {0, 4}, 1));
  slots_.Release();
  EXPECT_TRUE(slots_.upstreams().empty());
  EXPECT_FALSE(Pass(MakeStep(1, 3, {{kSequence, 10, 1}})));
  EXPECT_FALSE(Pass(MakeStep(2, 1, {{kSequence, 10, 1}})));
  EXPECT_EQ(slots_.TakeEnded().size(), 2u);
}

}  // namespace
}  // namespace efedllm
