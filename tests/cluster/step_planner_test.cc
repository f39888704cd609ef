#include "cluster/step_planner.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr StepRules kOneStage{1, 8, 256, 64};
constexpr StepRules kTwoStages{2, 12, 256, 64};
constexpr StepShape kRoomy{8, 64, 256};

// Stages that take read + rows x per_row each, behind links that take link all together.
ChainTimes Times(size_t stages, absl::Duration read, absl::Duration per_row, absl::Duration link,
                 absl::Duration head = absl::ZeroDuration()) {
  ChainTimes times(stages);
  for (uint32_t rows = 1; rows <= 512; rows *= 2) {
    StageTiming timing;
    timing.compute_micros = static_cast<uint32_t>(absl::ToInt64Microseconds(read + rows * per_row));
    times.ObserveStep(rows, std::vector<StageTiming>(stages, timing),
                      static_cast<int>(stages) * (read + rows * per_row) + link);
    times.ObserveHead(rows, head);
  }
  return times;
}

TEST(StepPlanner, DecodesComeFirstAndPromptsTakeTheRest) {
  EXPECT_THAT(PlanStep({{300, 0, 0, 0}, {11, 10, 0, 5}, {21, 20, 0, 5}}, kOneStage, kRoomy),
              ElementsAre(PlannedSpan{1, 1}, PlannedSpan{2, 1}, PlannedSpan{0, 254}));
}

TEST(StepPlanner, WhatIsInFlightIsNotPlannedAgain) {
  EXPECT_THAT(PlanStep({{10, 10, 0, 1}, {300, 300, 0, 1}}, kOneStage, kRoomy), IsEmpty());
}

TEST(StepPlanner, PromptsAreChunkedInTheirOrder) {
  EXPECT_THAT(PlanStep({{700, 512, 0, 2}, {400, 0, 0, 0}}, kOneStage, kRoomy),
              ElementsAre(PlannedSpan{0, 188}, PlannedSpan{1, 68}));
  EXPECT_THAT(PlanStep({{700, 512, 0, 2}, {400, 0, 0, 0}}, kOneStage, {2, 1, 64}),
              ElementsAre(PlannedSpan{0, 64}));
}

TEST(StepPlanner, TheLongestWaitingDecodesFirst) {
  EXPECT_THAT(PlanStep({{11, 10, 0, 9}, {11, 10, 0, 8}, {11, 10, 0, 10}}, kTwoStages, {2, 2, 0}),
              ElementsAre(PlannedSpan{1, 1}, PlannedSpan{0, 1}));
}

TEST(StepPlanner, DraftsGoWithTheirDecodeAndPromptsTakeWhatIsLeft) {
  EXPECT_THAT(PlanStep({{11, 10, 4, 0}, {50, 0, 3, 0}}, {1, 8, 20, 64}, kRoomy),
              ElementsAre(PlannedSpan{0, 5}, PlannedSpan{1, 15}));
  EXPECT_THAT(PlanStep({{11, 10, 9, 0}, {11, 10, 9, 0}}, {1, 8, 8, 64}, kRoomy),
              ElementsAre(PlannedSpan{0, 7}, PlannedSpan{1, 1}))
      << "a draft takes nobody's place";
}

TEST(StepPlanner, KeepsTheStepsLimits) {
  EXPECT_THAT(PlanStep({{11, 10}, {11, 10}, {11, 10}, {50, 0}}, {1, 8, 256, 2}, kRoomy),
              ElementsAre(PlannedSpan{0, 1}, PlannedSpan{1, 1}));
}

TEST(StepPlanner, WithoutMeasuresThereAreAsManyMicroBatchesAsStages) {
  const ChainTimes unknown(3);
  const StepRules rules{3, 16, 256, 64};
  EXPECT_EQ(ShapeSteps({8, 0}, rules, unknown).decodes, 3u);
  EXPECT_EQ(ShapeSteps({8, 0}, rules, unknown).in_flight, 3u);
  EXPECT_EQ(ShapeSteps({1, 0}, rules, unknown).in_flight, 1u);
  EXPECT_EQ(ShapeSteps({0, 500}, rules, unknown).prompt_rows, 64u);
  EXPECT_EQ(ShapeSteps({0, 500}, kOneStage, ChainTimes(1)).prompt_rows, 256u);
}

TEST(StepPlanner, AFastLinkGetsNoMoreMicroBatchesThanStages) {
  const ChainTimes times =
      Times(2, absl::Milliseconds(40), absl::Milliseconds(1), absl::Milliseconds(1));
  const StepShape shape = ShapeSteps({8, 0}, kTwoStages, times);
  EXPECT_EQ(shape.in_flight, 2u);
  EXPECT_EQ(shape.decodes, 4u);
}

TEST(StepPlanner, MoreMicroBatchesHideALongLink) {
  // Two stages of 10 ms and 100 ms of links: alone, a step is away for 120 ms.
  const ChainTimes times =
      Times(2, absl::Milliseconds(2), absl::Milliseconds(8), absl::Milliseconds(100));
  const StepShape shape = ShapeSteps({12, 0}, kTwoStages, times);
  EXPECT_GT(shape.in_flight, 4u);
  EXPECT_EQ(shape.decodes, (12 + shape.in_flight - 1) / shape.in_flight);
}

TEST(StepPlanner, WeightsAreNotReadMoreOftenThanItPays) {
  // Reading is all that a step costs: a third micro-batch would cost 40 ms to hide 20 ms.
  const ChainTimes times =
      Times(2, absl::Milliseconds(40), absl::Microseconds(10), absl::Milliseconds(20));
  EXPECT_EQ(ShapeSteps({8, 0}, kTwoStages, times).in_flight, 2u);
}

TEST(StepPlanner, ChunksAreShortWhereManyStagesWaitForTheFirst) {
  const auto chunk = [](size_t stages, absl::Duration read) {
    const ChainTimes times = Times(stages, read, absl::Milliseconds(1), absl::Milliseconds(1));
    return ShapeSteps({0, 512}, {stages, 4 * stages + 4, 512, 64}, times).prompt_rows;
  };
  EXPECT_EQ(chunk(1, absl::Milliseconds(10)), 512u);
  EXPECT_LT(chunk(2, absl::Milliseconds(10)), 192u);
  EXPECT_LT(chunk(8, absl::Milliseconds(10)), chunk(2, absl::Milliseconds(10)));
  EXPECT_GT(chunk(2, absl::Milliseconds(100)), chunk(2, absl::Milliseconds(1)))
      << "reading the weights again costs more";
}

TEST(StepPlanner, APromptBesideDecodesKeepsTheGapBounded) {
  const ChainTimes times =
      Times(2, absl::Milliseconds(40), absl::Milliseconds(1), absl::Milliseconds(2));
  const StepShape quiet = ShapeSteps({8, 0}, kTwoStages, times);
  const StepShape busy = ShapeSteps({8, 4096}, kTwoStages, times);
  EXPECT_GE(busy.prompt_rows, 16u);
  const double gap = times.Interval(busy.decodes + busy.prompt_rows, busy.decodes) *
                     static_cast<double>(busy.in_flight);
  const double usual =
      times.Interval(quiet.decodes, quiet.decodes) * static_cast<double>(quiet.in_flight);
  EXPECT_GT(gap, 1.3 * usual) << "prompts shall get on, too";
  EXPECT_LT(gap, 2.6 * usual);
  EXPECT_LT(busy.prompt_rows, ShapeSteps({0, 4096}, kTwoStages, times).prompt_rows);
}

TEST(StepPlanner, SomethingOfAPromptAlwaysGetsOn) {
  const ChainTimes times =
      Times(2, absl::Microseconds(1), absl::Milliseconds(10), absl::Milliseconds(1));
  EXPECT_EQ(ShapeSteps({1, 4096}, kTwoStages, times).prompt_rows, 16u);
}

}  // namespace
}  // namespace efedllm
