// A scheduler over a pipeline that plays the cluster.
#ifndef EFEDLLM_TESTS_COORDINATOR_SCHEDULER_WORLD_H_
#define EFEDLLM_TESTS_COORDINATOR_SCHEDULER_WORLD_H_

#include <functional>
#include <memory>
#include <string>

#include "coordinator/scheduler.h"
#include "coordinator/serving_world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace efedllm {

inline bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

class SchedulerTest : public testing::Test {
 protected:
  void Start(size_t stages = 1, uint64_t kv_tokens = 4096, size_t chains = 1) {
    pipeline_ = std::make_unique<FakePipeline>(stages, kv_tokens, chains);
    scheduler_ = std::make_unique<Scheduler>(clock_, Seedling(), *pipeline_, options_, registry_);
  }

  std::shared_ptr<Generation> Submit(GenerationInput input) {
    std::vector<GenerationInput> choices;
    choices.push_back(std::move(input));
    auto generation = scheduler_->Submit(std::move(choices));
    EXPECT_TRUE(generation.ok()) << generation.status();
    return *generation;
  }

  // What one request alone yields, over one stage in one chunk per 256 tokens.
  static Outcome Alone(const GenerationInput& input) {
    const SystemClock clock;
    prometheus::Registry registry;
    FakePipeline pipeline;
    Scheduler scheduler(clock, Seedling(), pipeline, {}, registry);
    return Collect(**scheduler.Submit({input}));
  }

  void TearDown() override {
    if (pipeline_ == nullptr) return;
    EXPECT_TRUE(scheduler_->WaitIdle(absl::Seconds(30)));
    EXPECT_TRUE(Eventually([&] { return scheduler_->Stats().kv_tokens_held == 0; }));
    EXPECT_TRUE(Eventually([&] {
      return pipeline_->kv_tokens() == scheduler_->Stats().kv_tokens_cached;
    })) << "KV is left behind that nobody remembers";
    EXPECT_TRUE(Eventually([&] { return pipeline_->active() == 0; }));
    EXPECT_THAT(pipeline_->violations(), ::testing::IsEmpty());
    scheduler_.reset();
  }

  SystemClock clock_;
  prometheus::Registry registry_;
  SchedulerOptions options_;
  std::unique_ptr<FakePipeline> pipeline_;
  std::unique_ptr<Scheduler> scheduler_;
};

inline std::string LongText(size_t words) {
  std::string text;
  for (size_t i = 0; i < words; ++i) text += i % 3 == 0 ? "fox " : "lamp " + std::to_string(i % 7);
  return text;
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_COORDINATOR_SCHEDULER_WORLD_H_
