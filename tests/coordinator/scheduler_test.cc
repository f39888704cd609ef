#include "coordinator/scheduler.h"

#include "coordinator/scheduler_world.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

TEST_F(SchedulerTest, GeneratesAsManyTokensAsAsked) {
  Start();
  const Outcome outcome = Collect(*Submit(Ask("Once upon", 20)));
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.tokens.size(), 20u);
  EXPECT_EQ(outcome.finish, FinishReason::kLength);
}

TEST_F(SchedulerTest, BatchMatesStagesAndChunksChangeNothing) {
  std::vector<GenerationInput> inputs;
  std::vector<Outcome> alone;
  for (size_t i = 0; i < 16; ++i) {
    inputs.push_back(Ask(LongText(1 + 9 * i), 5 + static_cast<uint32_t>(i)));
    inputs.back().sampling.temperature = i % 2 == 0 ? 0.f : 1.f;
    inputs.back().sampling.seed = i;
    inputs.back().logprobs = 3;
    inputs.back().prompt_logprobs = i % 4 == 0;
    alone.push_back(Alone(inputs.back()));
  }
  options_.max_step_tokens = 96;
  Start(/*stages=*/3, /*kv_tokens=*/16384);
  std::vector<std::shared_ptr<Generation>> generations;
  for (const GenerationInput& input : inputs) generations.push_back(Submit(input));
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Outcome outcome = Collect(*generations[i]);
    EXPECT_EQ(outcome.tokens, alone[i].tokens) << i;
    EXPECT_EQ(outcome.text, alone[i].text);
    ASSERT_EQ(outcome.prompt.size(), alone[i].prompt.size());
    for (size_t t = 1; t < outcome.prompt.size(); ++t) {
      EXPECT_EQ(outcome.prompt[t].logprobs->chosen, alone[i].prompt[t].logprobs->chosen);
    }
    for (size_t t = 0; t < outcome.scored.size(); ++t) {
      EXPECT_EQ(outcome.scored[t].logprobs->chosen, alone[i].scored[t].logprobs->chosen);
    }
  }
  EXPECT_EQ(pipeline_->most_in_flight(), 3u);
}

TEST_F(SchedulerTest, AFailedStepReplaysWithoutAChangeOfText) {
  const GenerationInput input = Ask(LongText(60), 40);
  const Outcome alone = Alone(input);
  Start(/*stages=*/2);
  pipeline_->Hold(true);  // so that the first fault surely meets a step in flight
  const auto generation = Submit(input);
  ASSERT_TRUE(Eventually([&] { return !pipeline_->steps().empty(); }));
  pipeline_->EndEpoch();
  pipeline_->Hold(false);
  Outcome outcome;
  for (int fault = 0; fault < 4; ++fault) {
    auto event = generation->Next(absl::Seconds(10));
    ASSERT_TRUE(event.has_value());
    outcome.tokens.push_back(event->token->token);
    if (fault % 2 == 0) {
      pipeline_->EndEpoch();
    } else {
      pipeline_->FailNext(absl::AbortedError("a worker was lost"));
    }
  }
  const Outcome rest = Collect(*generation);
  EXPECT_TRUE(rest.status.ok()) << rest.status;
  outcome.tokens.insert(outcome.tokens.end(), rest.tokens.begin(), rest.tokens.end());
  EXPECT_EQ(outcome.tokens, alone.tokens);
  EXPECT_GT(scheduler_->Stats().replays, 0u);
}

TEST_F(SchedulerTest, PromptLogprobsAreSaidOnceOverAReplay) {
  GenerationInput input = Ask(LongText(150), 3);
  input.logprobs = 1;
  input.prompt_logprobs = true;
  const Outcome alone = Alone(input);
  options_.max_step_tokens = 32;
  Start();
  const auto generation = Submit(input);
  size_t begun = 0;
  while (begun < 40) begun += generation->Next(absl::Seconds(10))->prompt.size();
  pipeline_->EndEpoch();
  const Outcome rest = Collect(*generation);
  EXPECT_EQ(begun + rest.prompt.size(), input.prompt.size());
  EXPECT_EQ(rest.tokens, alone.tokens);
}

TEST_F(SchedulerTest, ASequenceGoesOnWhenTheClusterComesBackInAnotherShape) {
  const GenerationInput input = Ask(LongText(40), 30);
  const Outcome alone = Alone(input);
  Start(/*stages=*/3);
  const auto generation = Submit(input);
  auto first = generation->Next(absl::Seconds(10));
  pipeline_->EndEpoch("waiting for 1 of 3 workers");
  ASSERT_TRUE(Eventually([&] { return !scheduler_->Stats().serving; }));
  EXPECT_EQ(scheduler_->Stats().reason, "waiting for 1 of 3 workers");
  pipeline_->BeginEpoch(/*stages=*/1);
  Outcome rest = Collect(*generation);
  rest.tokens.insert(rest.tokens.begin(), first->token->token);
  EXPECT_EQ(rest.tokens, alone.tokens);
}

TEST_F(SchedulerTest, RunningRequestsFailWhenTheOutageLastsTooLong) {
  options_.outage_patience = absl::Milliseconds(100);
  Start();
  pipeline_->Hold(true);
  const auto generation = Submit(Ask("Once", 30));
  ASSERT_TRUE(Eventually([&] { return pipeline_->sequences() == 1; }));
  pipeline_->EndEpoch("no worker is left");
  pipeline_->Hold(false);
  const Outcome outcome = Collect(*generation);
  EXPECT_TRUE(absl::IsUnavailable(outcome.status));
  EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("no worker is left"));
}

TEST_F(SchedulerTest, RefusesWhileNothingEverServed) {
  pipeline_ = std::make_unique<FakePipeline>();
  pipeline_->EndEpoch("waiting for 2 of 2 workers");
  scheduler_ = std::make_unique<Scheduler>(clock_, Seedling(), *pipeline_, options_, registry_);
  const auto refused = scheduler_->Submit({Ask("Once", 1)});
  EXPECT_TRUE(absl::IsUnavailable(refused.status()));
  EXPECT_EQ(refused.status().message(), "waiting for 2 of 2 workers");
  EXPECT_TRUE(absl::IsUnavailable(scheduler_->Probe(absl::Seconds(5))));
  EXPECT_TRUE(absl::IsUnavailable(scheduler_->MaxPositions().status()));
}

TEST_F(SchedulerTest, AClientThatLeavesFreesItsKvWithTheNextStep) {
  Start();
  const auto staying = Submit(Ask("Once", 300));
  const auto leaving = Submit(Ask("Twice", 300));
  ASSERT_TRUE(leaving->Next(absl::Seconds(10)).has_value());
  pipeline_->Hold(true);
  leaving->Cancel();
  const size_t before = pipeline_->steps().size();
  pipeline_->Hold(false);
  EXPECT_EQ(Collect(*staying).tokens.size(), 300u);
  const std::vector<Step> steps = pipeline_->steps();
  const auto freed = std::find_if(steps.begin(), steps.end(),
                                  [](const Step& step) { return !step.trims.empty(); });
  ASSERT_NE(freed, steps.end());
  // One may have been on its way when the client left, and one more when it was held.
  EXPECT_LE(static_cast<size_t>(freed - steps.begin()), before + 2);
}

TEST_F(SchedulerTest, ACancelledRequestIsReleasedThoughNothingElseRuns) {
  Start();
  const auto generation = Submit(Ask("Once", 900));
  ASSERT_TRUE(generation->Next(absl::Seconds(10)).has_value());
  generation->Cancel();
  ASSERT_TRUE(Eventually([&] { return scheduler_->Stats().kv_tokens_held == 0; }));
  ASSERT_TRUE(Eventually([&] { return pipeline_->active() == 0; }));
  const Step last = pipeline_->steps().back();
  EXPECT_TRUE(last.spans.empty());
  EXPECT_EQ(last.trims.size(), 1u);
}

TEST_F(SchedulerTest, RefusesWhatTheQueueCannotHold) {
  options_.max_queue = 2;
  options_.max_sequences = 1;
  Start();
  pipeline_->Hold(true);
  const auto running = Submit(Ask("Once", 2));
  ASSERT_TRUE(Eventually([&] { return scheduler_->Stats().running == 1; }));
  const auto second = Submit(Ask("Once", 2));
  const auto third = Submit(Ask("Once", 2));
  const auto refused = scheduler_->Submit({Ask("Once", 2)});
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  const auto too_many = scheduler_->Submit({Ask("a", 1), Ask("b", 1), Ask("c", 1)});
  EXPECT_TRUE(absl::IsInvalidArgument(too_many.status())) << too_many.status();
  pipeline_->Hold(false);
  EXPECT_TRUE(Collect(*running).status.ok());
  EXPECT_TRUE(Collect(*second).status.ok());
  EXPECT_TRUE(Collect(*third).status.ok());
}

TEST_F(SchedulerTest, NobodyRunsOutOfKvHalfWay) {
  Start(/*stages=*/2, /*kv_tokens=*/256);  // two pages for each of two
  std::vector<std::shared_ptr<Generation>> generations;
  for (int i = 0; i < 6; ++i) generations.push_back(Submit(Ask("Once upon a time", 100)));
  for (const auto& generation : generations) {
    EXPECT_EQ(Collect(*generation).tokens.size(), 100u);
  }
}

TEST_F(SchedulerTest, WhenKvRunsOutTheLaterOnesMakeRoomAndComeBack) {
  std::vector<GenerationInput> inputs;
  std::vector<Outcome> alone;
  for (uint64_t i = 0; i < 6; ++i) {
    inputs.push_back(Ask("Once upon a time " + std::to_string(i), 200));
    inputs.back().sampling.temperature = 1;
    inputs.back().sampling.seed = i;
    alone.push_back(Alone(inputs.back()));
  }
  Start(/*stages=*/2, /*kv_tokens=*/576);  // two and a half of them
  std::vector<std::shared_ptr<Generation>> generations;
  for (const GenerationInput& input : inputs) generations.push_back(Submit(input));
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(Collect(*generations[i]).tokens, alone[i].tokens) << i;
  }
  EXPECT_GT(scheduler_->Stats().preemptions, 0u);
}

TEST_F(SchedulerTest, ASecondRequestComputesOnlyWhatIsNew) {
  const GenerationInput first = Ask(LongText(150), 10);
  GenerationInput second = first;
  second.prompt.push_back(300);
  const Outcome alone = Alone(second);
  Start(/*stages=*/2);
  EXPECT_TRUE(Collect(*Submit(first)).status.ok());
  const size_t steps = pipeline_->steps().size();
  const auto generation = Submit(second);
  uint32_t cached = 0;
  Outcome outcome;
  while (auto event = generation->Next(absl::Seconds(10))) {
    cached = event->cached_tokens;
    outcome.tokens.push_back(event->token->token);
  }
  EXPECT_EQ(outcome.tokens, alone.tokens);
  EXPECT_EQ(cached, second.prompt.size() - 1);
  size_t computed = 0;
  for (size_t i = steps; i < pipeline_->steps().size(); ++i) {
    computed += pipeline_->steps()[i].tokens();
  }
  EXPECT_EQ(computed, 10u);
}

TEST_F(SchedulerTest, RequestsAtOnceComputeACommonPrefixOnce) {
  const GenerationInput input = Ask(LongText(200), 4);
  const Outcome alone = Alone(input);
  Start(/*stages=*/2, /*kv_tokens=*/16384);
  pipeline_->Hold(true);
  std::vector<std::shared_ptr<Generation>> generations;
  for (int i = 0; i < 8; ++i) generations.push_back(Submit(input));
  ASSERT_TRUE(Eventually([&] { return scheduler_->Stats().running == 8; }));
  pipeline_->Hold(false);
  for (const auto& generation : generations) {
    EXPECT_EQ(Collect(*generation).tokens, alone.tokens);
  }
  size_t computed = 0;
  for (const Step& step : pipeline_->steps()) computed += step.tokens();
  EXPECT_LT(computed, input.prompt.size() + 8 * (4 + 64));
}

TEST_F(SchedulerTest, AClientMayKeepItsPromptOutOfTheCache) {
  GenerationInput input = Ask(LongText(100), 2);
  input.cache_prompt = false;
  Start();
  EXPECT_TRUE(Collect(*Submit(input)).status.ok());
  EXPECT_TRUE(Eventually([&] { return pipeline_->sequences() == 0; }));
  EXPECT_EQ(scheduler_->Stats().kv_tokens_cached, 0u);
}

TEST_F(SchedulerTest, TheMoreImportantRunsFirstAndTakesAPlace) {
  options_.max_sequences = 1;
  Start();
  const GenerationInput input = Ask("Once", 200);
  GenerationInput important = Ask("Twice", 3);
  important.priority = 5;
  const Outcome alone = Alone(input);
  const auto early = Submit(input);
  auto first = early->Next(absl::Seconds(10));
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(Collect(*Submit(important)).tokens.size(), 3u);
  EXPECT_FALSE(early->done());
  Outcome rest = Collect(*early);
  rest.tokens.insert(rest.tokens.begin(), first->token->token);
  EXPECT_EQ(rest.tokens, alone.tokens);
}

TEST_F(SchedulerTest, OwnersTakeTurnsHoweverManyRequestsTheyHave) {
  options_.max_sequences = 1;
  Start();
  pipeline_->Hold(true);
  std::vector<std::shared_ptr<Generation>> many;
  for (int i = 0; i < 10; ++i) {
    GenerationInput input = Ask("Once", 5);
    input.owner = "a";
    many.push_back(Submit(input));
  }
  GenerationInput input = Ask("Twice", 5);
  input.owner = "b";
  const auto one = Submit(input);
  pipeline_->Hold(false);
  EXPECT_EQ(Collect(*one).tokens.size(), 5u);
  EXPECT_FALSE(many.back()->done()) << "b waited behind all of a's";
  for (const auto& generation : many) EXPECT_EQ(Collect(*generation).tokens.size(), 5u);
}

TEST_F(SchedulerTest, ARequestEndsAtItsDeadline) {
  Start();
  GenerationInput input = Ask("Once", 900);
  pipeline_->Hold(true);
  input.deadline = absl::Now() + absl::Milliseconds(50);
  const auto running = Submit(input);
  EXPECT_TRUE(absl::IsDeadlineExceeded(Collect(*running).status));
  pipeline_->Hold(false);
}

TEST_F(SchedulerTest, ReplicasShareTheRequests) {
  std::vector<GenerationInput> inputs;
  std::vector<Outcome> alone;
  for (int i = 0; i < 8; ++i) {
    inputs.push_back(Ask(std::to_string(i) + LongText(30), 30));
    alone.push_back(Alone(inputs.back()));
  }
  options_.max_sequences = 4;
  Start(/*stages=*/2, /*kv_tokens=*/2048, /*chains=*/2);
  pipeline_->Hold(true);
  std::vector<std::shared_ptr<Generation>> generations;
  for (const GenerationInput& input : inputs) generations.push_back(Submit(input));
  ASSERT_TRUE(Eventually([&] { return scheduler_->Stats().running == 8; }));
  pipeline_->Hold(false);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(Collect(*generations[i]).tokens, alone[i].tokens) << i;
  }
  size_t tokens[2] = {};
  for (const Step& step : pipeline_->steps()) {
    for (const SequenceSpan& span : step.spans) tokens[span.sequence.v >> 40] += span.tokens;
  }
  EXPECT_EQ(tokens[0], tokens[1]);
  // Who comes again is sent to where his prompt is known.
  const auto again = Submit(inputs[0]);
  uint32_t cached = 0;
  while (auto event = again->Next(absl::Seconds(10))) cached = event->cached_tokens;
  EXPECT_EQ(cached, inputs[0].prompt.size() - 1);
}

TEST_F(SchedulerTest, RefusesWhatCanNeverFit) {
  Start(/*stages=*/1, /*kv_tokens=*/128);
  EXPECT_EQ(*scheduler_->MaxPositions(), 128u);
  EXPECT_TRUE(absl::IsInvalidArgument(scheduler_->Submit({Ask("Once", 200)}).status()));
}

TEST_F(SchedulerTest, AWrongStepFailsItsSequencesOnly) {
  Start();
  pipeline_->FailNext(absl::InvalidArgumentError("broken"));
  const Outcome failed = Collect(*Submit(Ask("Once", 3)));
  EXPECT_TRUE(absl::IsInvalidArgument(failed.status));
  EXPECT_TRUE(Collect(*Submit(Ask("Once", 3))).status.ok());
}

TEST_F(SchedulerTest, AllChoicesOfARequestFinish) {
  Start();
  auto generation = *scheduler_->Submit({Ask("a", 3), Ask("b", 5), Ask("c", 0)});
  std::vector<uint32_t> counts(3);
  size_t finished = 0;
  while (auto event = generation->Next(absl::Seconds(10))) {
    counts[event->choice] = std::max(counts[event->choice], event->completion_tokens);
    finished += event->finish.has_value();
  }
  EXPECT_EQ(finished, 3u);
  EXPECT_THAT(counts, testing::ElementsAre(3, 5, 0));
}

TEST_F(SchedulerTest, AProbeMakesARealPass) {
  Start();
  EXPECT_TRUE(scheduler_->Probe(absl::Seconds(10)).ok());
  EXPECT_GE(scheduler_->Stats().steps, 1u);
  EXPECT_EQ(scheduler_->Stats().generated_tokens, 0u) << "nobody asked for that token";
  const size_t steps = pipeline_->steps().size();
  EXPECT_TRUE(scheduler_->Probe(absl::Seconds(10)).ok());
  EXPECT_LE(pipeline_->steps().size(), steps + 1) << "a release at most";
}

TEST_F(SchedulerTest, AProbeOfAStuckPipelineSaysSo) {
  Start();
  pipeline_->Hold(true);
  EXPECT_TRUE(absl::IsDeadlineExceeded(scheduler_->Probe(absl::Milliseconds(50))));
  pipeline_->Hold(false);
}

TEST_F(SchedulerTest, DrainingFinishesWhatRunsAndRefusesMore) {
  Start();
  const auto running = Submit(Ask("Once", 50));
  scheduler_->Drain();
  EXPECT_TRUE(absl::IsUnavailable(scheduler_->Submit({Ask("Once", 1)}).status()));
  EXPECT_TRUE(scheduler_->WaitIdle(absl::Seconds(30)));
  EXPECT_EQ(Collect(*running).tokens.size(), 50u);
}

TEST_F(SchedulerTest, StoppingFailsWhatRuns) {
  FakePipeline pipeline;
  pipeline.Hold(true);
  auto scheduler = std::make_unique<Scheduler>(clock_, Seedling(), pipeline, options_, registry_);
  const auto generation = *scheduler->Submit({Ask("Once", 50)});
  scheduler.reset();
  EXPECT_TRUE(absl::IsUnavailable(Collect(*generation).status));
}

TEST_F(SchedulerTest, ABiasedTokenWinsAndItsLogprobStaysTheModels) {
  GenerationInput plain = Ask("Once", 1);
  plain.logprobs = 0;
  const Outcome unbiased = Alone(plain);
  Start();
  GenerationInput biased = plain;
  biased.logit_bias = {{300, 100.f}, {unbiased.tokens[0], -100.f}};
  const Outcome outcome = Collect(*Submit(biased));
  EXPECT_EQ(outcome.tokens[0], 300);
  EXPECT_LE(outcome.scored[0].logprobs->chosen, unbiased.scored[0].logprobs->chosen);
}

}  // namespace
}  // namespace efedllm
