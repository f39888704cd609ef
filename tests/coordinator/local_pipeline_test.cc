#include "coordinator/local_pipeline.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "coordinator/scheduler.h"
#include "coordinator/serving_world.h"
#include "gtest/gtest.h"
#include "model/temp_dir.h"
#include "model/weights.h"

namespace efedllm {
namespace {

class LocalPipelineTest : public testing::Test {
 protected:
  static std::unique_ptr<LocalPipeline> Make(Compute& compute, uint64_t kv_tokens = 4096) {
    LocalPipelineOptions options;
    options.kv_tokens = kv_tokens;
    auto pipeline = LocalPipeline::Create(Seedling().config, Seedling().file, options, compute);
    EXPECT_TRUE(pipeline.ok()) << pipeline.status();
    return *std::move(pipeline);
  }

  Compute compute_ = *Compute::Create(1, "auto");
};

TEST_F(LocalPipelineTest, RefusesStepsOfAnotherEpoch) {
  auto pipeline = Make(compute_);
  Step step;
  step.epoch = Epoch{7};
  step.trims = {{SequenceId{1}, 0}};
  EXPECT_TRUE(absl::IsAborted(pipeline->Submit(step, 0, Matrix())));
}

TEST_F(LocalPipelineTest, ReturnsResultsInOrderAndErrorsAsResults) {
  auto pipeline = Make(compute_);
  const size_t width = Seedling().config.d_model;
  for (uint64_t id = 1; id <= 3; ++id) {
    Step step;
    step.epoch = Epoch{1};
    step.id = StepId{id};
    step.spans = {{SequenceId{5}, id == 2 ? 50u : static_cast<uint32_t>(id == 1 ? 0 : 1), 1}};
    ASSERT_TRUE(pipeline->Submit(step, 0, Matrix(1, width)).ok());
  }
  for (uint64_t id = 1; id <= 3; ++id) {
    const auto result = pipeline->NextResult(absl::Seconds(30));
    ASSERT_TRUE(result.has_value());
    EXPECT_EQ(result->id.v, id);
    EXPECT_EQ(result->status.ok(), id != 2) << result->status;
  }
}

TEST_F(LocalPipelineTest, SaysHowLongAStepWaitedAndWasComputed) {
  auto pipeline = Make(compute_);
  Step step;
  step.epoch = Epoch{1};
  step.spans = {{SequenceId{5}, 0, 8}};
  const absl::Time before = absl::Now();
  ASSERT_TRUE(pipeline->Submit(step, 0, Matrix(8, Seedling().config.d_model)).ok());
  const auto result = pipeline->NextResult(absl::Seconds(30));
  ASSERT_TRUE(result.has_value());
  ASSERT_EQ(result->timings.size(), 1u);
  const StageTiming& timing = result->timings[0];
  EXPECT_EQ(timing.node, NodeId{0});
  EXPECT_GE(timing.received_micros, absl::ToUnixMicros(before));
  EXPECT_GT(timing.compute_micros, 0u);
  EXPECT_LE(timing.received_micros + timing.queue_micros + timing.compute_micros,
            absl::ToUnixMicros(result->returned));
}

TEST_F(LocalPipelineTest, KeepsItsWeightsForTheNextStartWhileItServes) {
  TempDir dir;
  const auto cache = *WeightCache::Open(dir.path());
  const auto hasher = *TensorHasher::Create(Seedling().file, "");
  const size_t tensors =
      StageTensors(Seedling().config, Seedling().file, {0, Seedling().config.layers})->size();
  LocalPipelineOptions options;
  options.kv_tokens = 64;
  options.cache = cache.get();
  options.hasher = hasher.get();
  std::vector<StepResult> results;
  for (int start = 0; start < 2; ++start) {  // packs, then maps
    auto pipeline = *LocalPipeline::Create(Seedling().config, Seedling().file, options, compute_);
    Step step;
    step.epoch = Epoch{1};
    step.spans = {{SequenceId{5}, 0, 1}};
    ASSERT_TRUE(pipeline->Submit(step, 0, Matrix(1, Seedling().config.d_model)).ok());
    results.push_back(*pipeline->NextResult(absl::Seconds(30)));
    ASSERT_TRUE(results.back().status.ok());
    for (int i = 0; i < 3000 && dir.Ending(".packed").size() < tensors; ++i) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    EXPECT_EQ(dir.Ending(".packed").size(), tensors);
  }
  const auto first = results[0].hidden.ref().span(), second = results[1].hidden.ref().span();
  EXPECT_TRUE(std::equal(first.begin(), first.end(), second.begin(), second.end()));
}

TEST_F(LocalPipelineTest, SeedlingAnswersAndSixteenAtOnceSayWhatEachSaysAlone) {
  const std::vector<std::string> questions = {"What is 27 + 48?", "What is the capital of France?",
                                              "Spell rabbit.", "Show me a fox emoji."};
  const SystemClock clock;
  const auto ask = [&](const std::string& question) {
    GenerationInput input =
        Ask("<|im_start|>user\n" + question + "<|im_end|>\n<|im_start|>assistant\n", 60);
    input.ignore_eos = false;
    input.logprobs = 5;
    return input;
  };
  auto pipeline = Make(compute_);
  prometheus::Registry registry;
  Scheduler scheduler(clock, Seedling(), *pipeline, {}, registry);
  std::vector<Outcome> alone;
  for (const std::string& question : questions) {
    alone.push_back(Collect(**scheduler.Submit({ask(question)})));
  }
  EXPECT_EQ(alone[0].text, "27 + 48 = 75");
  EXPECT_EQ(alone[1].text, "The capital of France is Paris.");
  EXPECT_EQ(alone[2].text, "rabbit is spelled r-a-b-b-i-t.");
  EXPECT_EQ(alone[0].finish, FinishReason::kStop);

  std::vector<std::shared_ptr<Generation>> together;
  for (size_t i = 0; i < 16; ++i) together.push_back(*scheduler.Submit({ask(questions[i % 4])}));
  for (size_t i = 0; i < 16; ++i) {
    const Outcome outcome = Collect(*together[i]);
    EXPECT_EQ(outcome.tokens, alone[i % 4].tokens);
    for (size_t t = 0; t < outcome.scored.size(); ++t) {
      EXPECT_EQ(outcome.scored[t].logprobs->chosen, alone[i % 4].scored[t].logprobs->chosen);
    }
  }
}

}  // namespace
}  // namespace efedllm
