#include "cluster/step_timeline.h"

#include <gtest/gtest.h>

#include "common/random.h"

namespace efedllm {
namespace {

constexpr NodeId kA{1}, kB{2};

absl::Time At(int64_t micros) { return absl::FromUnixMicros(1'000'000'000 + micros); }
StageTiming Timing(NodeId node, int64_t received, uint32_t decode, uint32_t queue, uint32_t compute,
                   uint32_t encode) {
  return {node, 1'000'000'000 + received, decode, queue, compute, encode};
}
absl::Duration NoOffset(NodeId) { return absl::ZeroDuration(); }

TEST(StepTimeline, PutsStagesAndHopsOneBehindTheOther) {
  const StepTimeline line = PlaceStep(
      At(0), At(1000), {Timing(kA, 100, 1, 2, 200, 3), Timing(kB, 350, 4, 5, 300, 6)}, NoOffset);
  ASSERT_EQ(line.stages.size(), 2u);
  EXPECT_EQ(line.stages[0].node, kA);
  EXPECT_EQ(line.stages[0].wire, absl::Microseconds(100));
  EXPECT_EQ(line.stages[0].begun(), At(103));
  EXPECT_EQ(line.stages[0].computed(), At(303));
  EXPECT_EQ(line.stages[0].left(), At(306));
  EXPECT_EQ(line.stages[1].wire, absl::Microseconds(44));
  EXPECT_EQ(line.wire_back, absl::Microseconds(1000 - 350 - 315));
}

TEST(StepTimeline, TakesTheDifferenceOfTheClocksOut) {
  const auto offset = [](NodeId node) {
    return node == kA ? absl::Hours(3) : absl::Microseconds(-50);
  };
  const int64_t three_hours = absl::ToInt64Microseconds(absl::Hours(3));
  const StepTimeline line = PlaceStep(
      At(0), At(1000), {Timing(kA, three_hours + 100, 0, 0, 200, 0), Timing(kB, 310, 0, 0, 300, 0)},
      offset);
  EXPECT_EQ(line.stages[0].wire, absl::Microseconds(100));
  EXPECT_EQ(line.stages[1].wire, absl::Microseconds(60));
}

TEST(StepTimeline, WhateverTheClocksSayNoHopIsNegativeAndAllLiesWithinTheStep) {
  Random random(5);
  for (int i = 0; i < 1000; ++i) {
    std::vector<StageTiming> timings;
    int64_t inside = 0;
    for (uint64_t stage = 0; stage <= random.Below(4); ++stage) {
      const auto part = [&] { return static_cast<uint32_t>(random.Below(100)); };
      timings.push_back(Timing(NodeId{stage}, static_cast<int64_t>(random.Below(4000)) - 2000,
                               part(), part(), part(), part()));
      const StageTiming& last = timings.back();
      inside += last.decode_micros + last.queue_micros + last.compute_micros + last.encode_micros;
    }
    const absl::Time returned = At(inside + static_cast<int64_t>(random.Below(500)));
    const StepTimeline line = PlaceStep(At(0), returned, timings, NoOffset);
    absl::Time left = At(0);
    for (const StagePassage& stage : line.stages) {
      ASSERT_GE(stage.wire, absl::ZeroDuration());
      ASSERT_EQ(stage.received, left + stage.wire);
      left = stage.left();
    }
    ASSERT_GE(line.wire_back, absl::ZeroDuration());
    ASSERT_EQ(left + line.wire_back, returned) << "round " << i;
  }
}

TEST(StepTimeline, AStepThatClaimsMoreThanItTookEndsLateAndNothingIsNegative) {
  const StepTimeline line = PlaceStep(At(0), At(10), {Timing(kA, 5, 100, 100, 100, 100)}, NoOffset);
  EXPECT_EQ(line.stages[0].wire, absl::ZeroDuration());
  EXPECT_EQ(line.wire_back, absl::ZeroDuration());
}

}  // namespace
}  // namespace efedllm
