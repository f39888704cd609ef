// What the scheduler makes of epochs that go on with the KV of those before.
#include "coordinator/scheduler_world.h"

namespace efedllm {
namespace {

using Failover = SchedulerTest;

// Epochs that go on with the KV of those before, with all of it or without that of one stage.
TEST_F(Failover, GoesOnWithTheKvThatTheNodesHave) {
  std::vector<GenerationInput> inputs;
  for (uint32_t i = 0; i < 3; ++i) inputs.push_back(Ask(LongText(50 + 40 * i), 400));
  std::vector<Outcome> alone;
  for (const GenerationInput& input : inputs) alone.push_back(Alone(input));
  const std::vector<std::vector<uint32_t>> losses = {{}, {1}, {0}, {2}, {0, 1}, {}};
  Start(/*stages=*/3);
  std::vector<std::shared_ptr<Generation>> generations;
  for (const GenerationInput& input : inputs) generations.push_back(Submit(input));
  std::vector<Outcome> outcomes(inputs.size());
  for (const std::vector<uint32_t>& lost : losses) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      for (int n = 0; n < 5; ++n) {
        const auto event = generations[i]->Next(absl::Seconds(10));
        ASSERT_TRUE(event.has_value() && event->token.has_value());
        outcomes[i].tokens.push_back(event->token->token);
      }
    }
    pipeline_->ContinueEpoch(lost);
    for (const Step& step : pipeline_->steps()) {
      if (step.replay() || step.epoch.v != pipeline_->epoch().v) continue;
      // Nobody computes a prompt again.
      for (const SequenceSpan& span : step.spans) EXPECT_GT(span.first_position, 0u);
    }
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Outcome rest = Collect(*generations[i]);
    EXPECT_TRUE(rest.status.ok()) << rest.status;
    outcomes[i].tokens.insert(outcomes[i].tokens.end(), rest.tokens.begin(), rest.tokens.end());
    EXPECT_EQ(outcomes[i].tokens, alone[i].tokens);
  }
}

TEST_F(Failover, AReplayThatFailsIsMadeFromTheTokens) {
  const GenerationInput input = Ask(LongText(60), 60);
  const Outcome alone = Alone(input);
  Start(/*stages=*/2);
  const auto generation = Submit(input);
  Outcome outcome;
  for (int n = 0; n < 5; ++n) {
    outcome.tokens.push_back(generation->Next(absl::Seconds(10))->token->token);
  }
  pipeline_->FailReplays(absl::FailedPreconditionError("kept no outputs"));
  pipeline_->ContinueEpoch({1});
  const Outcome rest = Collect(*generation);
  EXPECT_TRUE(rest.status.ok()) << rest.status;
  outcome.tokens.insert(outcome.tokens.end(), rest.tokens.begin(), rest.tokens.end());
  EXPECT_EQ(outcome.tokens, alone.tokens);
}

TEST_F(Failover, ASequenceBetweenTwoEpochsCanBeCancelled) {
  Start(/*stages=*/2);
  const auto generation = Submit(Ask(LongText(60), 800));
  ASSERT_TRUE(generation->Next(absl::Seconds(10)).has_value());
  pipeline_->EndEpoch("planning");
  ASSERT_TRUE(Eventually([&] { return scheduler_->Stats().queued == 1; }));
  generation->Cancel();
  EXPECT_TRUE(Eventually([&] { return scheduler_->Stats().queued == 0; }));
}

}  // namespace
}  // namespace efedllm
