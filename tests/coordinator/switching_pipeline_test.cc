#include "coordinator/switching_pipeline.h"

#include <gtest/gtest.h>

#include <deque>

namespace efedllm {
namespace {

// Keeps steps until told to give them back.
class FakePipeline final : public Pipeline {
 public:
  explicit FakePipeline(uint64_t epoch) : epoch_{epoch} {}

  absl::StatusOr<PipelineCapacity> Capacity() const override {
    PipelineCapacity capacity;
    capacity.epoch = epoch_;
    return capacity;
  }
  absl::Status Submit(Step step, size_t, Matrix) override {
    if (step.epoch != epoch_) return absl::AbortedError("another epoch");
    steps_.push_back(step.id);
    return absl::OkStatus();
  }
  std::optional<StepResult> NextResult(absl::Duration) override {
    if (steps_.empty()) return std::nullopt;
    StepResult result;
    result.epoch = epoch_;
    result.id = steps_.front();
    steps_.pop_front();
    return result;
  }
  void SetActiveSequences(size_t) override {}

 private:
  const Epoch epoch_;
  std::deque<StepId> steps_;
};

absl::Status SubmitStep(Pipeline& pipeline, uint64_t epoch, uint64_t id) {
  Step step;
  step.epoch = Epoch{epoch};
  step.id = StepId{id};
  return pipeline.Submit(std::move(step), 0, Matrix());
}

class SwitchingPipelineTest : public testing::Test {
 protected:
  size_t active_ = 0;
  SwitchingPipeline pipeline_{[this](size_t active) { active_ = active; }};
};

TEST_F(SwitchingPipelineTest, SaysWhyNothingServes) {
  pipeline_.Stop(absl::UnavailableError("waiting for workers"));
  EXPECT_EQ(pipeline_.Capacity().status(), absl::UnavailableError("waiting for workers"));
  EXPECT_TRUE(absl::IsAborted(SubmitStep(pipeline_, 1, 1)));
  EXPECT_FALSE(pipeline_.NextResult(absl::Milliseconds(1)).has_value());
}

TEST_F(SwitchingPipelineTest, GivesTheResultsOfTheOldEpochBeforeThoseOfTheNew) {
  pipeline_.Serve(std::make_shared<FakePipeline>(1));
  ASSERT_TRUE(SubmitStep(pipeline_, 1, 10).ok());
  ASSERT_TRUE(SubmitStep(pipeline_, 1, 11).ok());
  pipeline_.Stop(absl::UnavailableError("planning"));
  pipeline_.Serve(std::make_shared<FakePipeline>(2));
  EXPECT_TRUE(absl::IsAborted(SubmitStep(pipeline_, 1, 12)));
  ASSERT_TRUE(SubmitStep(pipeline_, 2, 1).ok());
  EXPECT_EQ(pipeline_.NextResult(absl::Seconds(1))->id.v, 10u);
  EXPECT_EQ(pipeline_.NextResult(absl::Seconds(1))->id.v, 11u);
  const std::optional<StepResult> result = pipeline_.NextResult(absl::Seconds(1));
  EXPECT_EQ(result->epoch.v, 2u);
  EXPECT_EQ(result->id.v, 1u);
}

TEST_F(SwitchingPipelineTest, LetsGoOfAnEpochThatIsOverAndDrained) {
  auto first = std::make_shared<FakePipeline>(1);
  const std::weak_ptr<FakePipeline> watch = first;
  pipeline_.Serve(std::move(first));
  ASSERT_TRUE(SubmitStep(pipeline_, 1, 10).ok());
  pipeline_.Stop(absl::UnavailableError("planning"));
  EXPECT_FALSE(watch.expired());
  EXPECT_TRUE(pipeline_.NextResult(absl::Seconds(1)).has_value());
  EXPECT_TRUE(watch.expired());
}

TEST_F(SwitchingPipelineTest, PassesOnHowManySequencesAreActive) {
  pipeline_.SetActiveSequences(3);
  EXPECT_EQ(active_, 3u);
}

}  // namespace
}  // namespace efedllm
