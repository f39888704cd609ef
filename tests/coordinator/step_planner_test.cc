#include "coordinator/step_planner.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr StepRules kOneStage{1, 256, 64};

TEST(StepPlanner, DecodesComeFirstAndPromptsTakeTheRest) {
  EXPECT_THAT(PlanStep({{300, 0, 0}, {11, 10, 5}, {21, 20, 5}}, kOneStage),
              ElementsAre(PlannedSpan{1, 1}, PlannedSpan{2, 1}, PlannedSpan{0, 254}));
}

TEST(StepPlanner, WhatIsInFlightIsNotPlannedAgain) {
  EXPECT_THAT(PlanStep({{10, 10, 1}, {300, 300, 1}}, kOneStage), IsEmpty());
}

TEST(StepPlanner, PromptsAreChunkedOldestFirst) {
  EXPECT_THAT(PlanStep({{700, 512, 2}, {400, 0, 0}}, kOneStage),
              ElementsAre(PlannedSpan{0, 188}, PlannedSpan{1, 68}));
}

TEST(StepPlanner, SeveralStagesShareTheDecodes) {
  const StepRules rules{2, 256, 64};
  const SequenceWork ready{11, 10, 3};
  EXPECT_THAT(PlanStep({ready, ready, ready, ready}, rules),
              ElementsAre(PlannedSpan{0, 1}, PlannedSpan{1, 1}));
}

TEST(StepPlanner, TheLongestWaitingDecodesFirst) {
  const StepRules rules{2, 256, 64};
  EXPECT_THAT(PlanStep({{11, 10, 9}, {11, 10, 8}, {11, 11, 10}, {11, 11, 10}}, rules),
              ElementsAre(PlannedSpan{1, 1}, PlannedSpan{0, 1}));
}

TEST(StepPlanner, SeveralStagesGetShorterChunks) {
  EXPECT_THAT(PlanStep({{600, 0, 0}}, {4, 256, 64}), ElementsAre(PlannedSpan{0, 64}));
  EXPECT_THAT(PlanStep({{600, 0, 0}}, {100, 256, 64}), ElementsAre(PlannedSpan{0, 32}));
}

TEST(StepPlanner, KeepsTheStepsLimits) {
  EXPECT_THAT(PlanStep({{11, 10, 0}, {11, 10, 0}, {11, 10, 0}, {50, 0, 0}}, {1, 256, 2}),
              ElementsAre(PlannedSpan{0, 1}, PlannedSpan{1, 1}));
  EXPECT_THAT(PlanStep({{11, 10, 0}, {11, 10, 0}, {50, 0, 0}}, {1, 8, 64}),
              ElementsAre(PlannedSpan{0, 1}, PlannedSpan{1, 1}, PlannedSpan{2, 6}));
}

}  // namespace
}  // namespace efedllm
