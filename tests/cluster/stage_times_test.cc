#include "cluster/stage_times.h"

#include <vector>

#include "gtest/gtest.h"

namespace efedllm {
namespace {

StageTiming Computes(uint32_t millis) {
  StageTiming timing;
  timing.compute_micros = millis * 1000;
  return timing;
}

TEST(RowTimes, NothingIsKnownAtFirst) {
  const RowTimes times;
  EXPECT_FALSE(times.known());
  EXPECT_EQ(times.Seconds(8), 0);
}

TEST(RowTimes, IsLinearBetweenWhatWasSeenAndBeyondIt) {
  RowTimes times;
  times.Observe(4, absl::Milliseconds(28));
  EXPECT_DOUBLE_EQ(times.Seconds(4), 0.028);
  EXPECT_DOUBLE_EQ(times.Seconds(18), 0.056) << "in proportion to rows + 10";
  EXPECT_DOUBLE_EQ(times.Seconds(1), 0.022);
  times.Observe(12, absl::Milliseconds(66));
  EXPECT_DOUBLE_EQ(times.Seconds(8), 0.047) << "half-way";
  EXPECT_DOUBLE_EQ(times.Seconds(34), 0.132);
}

TEST(RowTimes, MoreRowsNeverTakeLess) {
  RowTimes times;
  times.Observe(4, absl::Milliseconds(50));
  times.Observe(8, absl::Milliseconds(40));
  EXPECT_GE(times.Seconds(8), times.Seconds(4));
  EXPECT_GE(times.Seconds(100), times.Seconds(8));
  EXPECT_GE(times.Seconds(6), times.Seconds(4));
}

TEST(RowTimes, ADisturbedStepDoesNotMakeLargerOnesLookDear) {
  RowTimes times;
  times.Observe(1, absl::Milliseconds(30));
  times.Observe(2, absl::Milliseconds(400));
  times.Observe(32, absl::Milliseconds(90));
  EXPECT_LE(times.Seconds(2), 0.090);
  EXPECT_LE(times.Seconds(17), 0.090);
}

TEST(RowTimes, FollowsAChangeAndForgivesAnOutlier) {
  RowTimes times;
  for (int i = 0; i < 50; ++i) times.Observe(4, absl::Milliseconds(10));
  times.Observe(4, absl::Seconds(5));
  EXPECT_LT(times.Seconds(4), 0.013);
  for (int i = 0; i < 100; ++i) times.Observe(4, absl::Milliseconds(20));
  EXPECT_NEAR(times.Seconds(4), 0.020, 0.001);
}

TEST(RowTimes, OfALinkTheLeastCounts) {
  RowTimes times(RowTimes::Keep::kLeast);
  times.Observe(4, absl::Milliseconds(10));
  for (int i = 0; i < 5; ++i) times.Observe(4, absl::Milliseconds(15));
  EXPECT_LT(times.Seconds(4), 0.011);
  for (int i = 0; i < 500; ++i) times.Observe(4, absl::Milliseconds(15));
  EXPECT_GT(times.Seconds(4), 0.014) << "the link has become slower";
}

TEST(ChainTimes, TellsStagesLinksAndHeadApart) {
  ChainTimes times(2);
  EXPECT_FALSE(times.known());
  times.ObserveStep(4, {{Computes(10), Computes(30)}}, absl::Milliseconds(46));
  times.ObserveHead(4, absl::Milliseconds(5));
  EXPECT_TRUE(times.known());
  EXPECT_NEAR(times.Interval(4, 4), 0.030, 1e-9);
  EXPECT_NEAR(times.Pass(4, 4), 0.051, 1e-9);
  EXPECT_NEAR(times.Pass(4, 0), 0.046, 1e-9) << "nobody wants logits";
}

TEST(ChainTimes, AStepThatDidNotPassAllStagesSaysNothing) {
  ChainTimes times(2);
  times.ObserveStep(4, {Computes(10)}, absl::Milliseconds(46));
  EXPECT_FALSE(times.known());
}

}  // namespace
}  // namespace efedllm
