// Speculation over real stages: the same text to the letter, in fewer trips.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/random.h"
#include "integration/cluster_world.h"

namespace efedllm {
namespace {

struct Said {
  std::string all;  // text, ends and logprobs of every event
  uint32_t completion = 0;
  uint32_t accepted = 0;
  uint32_t rejected = 0;
};

Said Collect(Generation& generation) {
  Said said;
  while (!generation.done()) {
    const auto event = generation.Next(absl::Seconds(60));
    if (!event.has_value() || !event->status.ok()) {
      ADD_FAILURE() << (event.has_value() ? event->status.ToString() : "no answer");
      return said;
    }
    absl::StrAppend(&said.all, event->text, "|");
    if (event->token.has_value()) absl::StrAppend(&said.all, event->token->token, "|");
    if (event->token.has_value() && event->token->logprobs.has_value()) {
      absl::StrAppend(&said.all, event->token->logprobs->chosen, "|");
    }
    if (event->finish.has_value()) absl::StrAppend(&said.all, static_cast<int>(*event->finish));
    said.completion = event->completion_tokens;
    said.accepted = event->accepted_tokens;
    said.rejected = event->rejected_tokens;
  }
  return said;
}

const char* const kTexts[] = {
    "one two three four one two three four one two three four one two",
    "Spell rabbit.",
    "Tell me a story about a fox named Milo.",
    "12 + 34 = 46, 12 + 34 = 46, 12 + 34 =",
    "A B A B A B A B A",
};

GenerationInput RandomInput(Random& random) {
  GenerationInput input;
  input.prompt = SeedlingTokens(kTexts[random.Below(std::size(kTexts))]);
  input.max_tokens = static_cast<uint32_t>(20 + random.Below(80));
  input.ignore_eos = random.Below(3) != 0;
  input.sampling.seed = random.Next();
  input.sampling.temperature = random.Below(2) == 0 ? 0 : static_cast<float>(random.Uniform());
  if (random.Below(3) == 0) input.sampling.top_p = 0.9f;
  if (random.Below(3) == 0) input.sampling.repetition_penalty = 1.1f;
  if (random.Below(4) == 0) input.sampling.frequency_penalty = 0.3f;
  if (random.Below(3) == 0) input.stop = {"four one two three four one two three"};
  if (random.Below(3) == 0) input.logprobs = 2;
  return input;
}

// All inputs at once, each of them with and without drafts.
void ExpectTheSame(ClusterWorld& world, const std::vector<GenerationInput>& inputs) {
  std::vector<std::shared_ptr<Generation>> generations[2];
  for (const GenerationInput& input : inputs) {
    for (const bool speculation : {false, true}) {
      GenerationInput asked = input;
      asked.speculation = speculation;
      auto generation = world.coordinator().scheduler().Submit({asked});
      ASSERT_TRUE(generation.ok()) << generation.status();
      generations[speculation].push_back(*std::move(generation));
    }
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Said plain = Collect(*generations[0][i]);
    const Said drafted = Collect(*generations[1][i]);
    EXPECT_EQ(drafted.all, plain.all) << i;
    EXPECT_EQ(drafted.completion, plain.completion);
    EXPECT_EQ(plain.accepted + plain.rejected, 0u);
    EXPECT_LT(drafted.accepted, drafted.completion);
  }
}

TEST(Speculation, SaysTheSameHereAndOverWorkersWithAndWithoutADraftModel) {
  Random random(21);
  for (const size_t workers : {0, 2}) {
    for (const bool model : {false, true}) {
      ClusterWorld world(kSeedlingPath, workers, [&](CoordinatorOptions& options) {
        if (model) options.draft_model = kSeedlingPath;
      });
      for (size_t i = 0; i < workers; ++i) world.Join();
      ASSERT_TRUE(world.AwaitServing(workers));
      std::vector<GenerationInput> inputs(12);
      for (GenerationInput& input : inputs) input = RandomInput(random);
      ExpectTheSame(world, inputs);
    }
  }
}

TEST(Speculation, GuessesTextThatRepeats) {
  ClusterWorld world(kSeedlingPath, 2);
  for (size_t i = 0; i < 2; ++i) world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  GenerationInput input;
  input.prompt = SeedlingTokens(kTexts[0]);
  input.max_tokens = 200;
  input.ignore_eos = true;
  input.sampling.temperature = 0;
  const auto steps_of = [&](bool speculation, Said& said) {
    const uint64_t before = world.coordinator().scheduler().Stats().steps;
    input.speculation = speculation;
    said = Collect(**world.coordinator().scheduler().Submit({input}));
    return world.coordinator().scheduler().Stats().steps - before;
  };
  Said plain;
  Said drafted;
  const uint64_t steps = steps_of(false, plain);
  EXPECT_LT(steps_of(true, drafted), steps);
  EXPECT_EQ(drafted.all, plain.all);
  EXPECT_GT(drafted.accepted, 20u);
}

}  // namespace
}  // namespace efedllm
