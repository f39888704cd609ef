// Speculation changes no bit of what a sequence yields: here with drafts of any quality, over a
// model that is a hash of the text so far.
#include "coordinator/sequence.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/random.h"
#include "coordinator/serving_world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

// Logits behind a text: they depend on its last tokens, prefer few tokens, and so repeat.
std::vector<float> LogitsAfter(absl::Span<const int32_t> tokens) {
  uint64_t state = 1;
  for (const int32_t token : tokens.subspan(tokens.size() - std::min<size_t>(tokens.size(), 2))) {
    state = Random(state + static_cast<uint64_t>(token)).Next();
  }
  Random random(state);
  std::vector<float> logits(Seedling().config.vocab);
  for (float& logit : logits) logit = static_cast<float>(random.Uniform());
  for (int i = 0; i < 6; ++i) logits[random.Below(40)] += 4 * static_cast<float>(random.Uniform());
  logits[static_cast<size_t>(Seedling().tokenizer->eos())] += 2.5f;
  return logits;
}

struct Yield {
  std::vector<std::string> events;  // all that a client can see, but for the usage of drafts
  std::vector<int32_t> output;
  uint32_t accepted = 0;
  uint32_t rejected = 0;
  size_t steps = 0;
};

std::string Describe(const GenerationEvent& event) {
  std::string text = absl::StrCat(event.text, "|", event.completion_tokens, "|",
                                  event.finish ? static_cast<int>(*event.finish) : -1);
  const auto add = [&](const ScoredToken& scored) {
    absl::StrAppend(&text, "|", scored.token);
    if (!scored.logprobs.has_value()) return;
    absl::StrAppend(&text, ":", scored.logprobs->chosen);
    for (const TokenLogprob& top : scored.logprobs->top) {
      absl::StrAppend(&text, ",", top.token, "=", top.logprob);
    }
  };
  for (const ScoredToken& scored : event.prompt) add(scored);
  if (event.token.has_value()) add(*event.token);
  return text;
}

using Drafter = std::function<std::vector<int32_t>(const Sequence&)>;

// Computes a sequence as the scheduler does, one span a step, and keeps the KV's book: of which
// tokens each position was computed.
Yield Generate(const GenerationInput& input, const Drafter& drafter) {
  auto generation = std::make_shared<Generation>(1);
  Sequence sequence(SequenceId{1}, 0, input, generation, *Seedling().tokenizer);
  std::vector<int32_t> kv;
  Yield run;
  while (!sequence.finished()) {
    if (sequence.draft_room() > 0) {
      std::vector<int32_t> drafts = drafter(sequence);
      drafts.resize(std::min<size_t>(drafts.size(), sequence.draft_room()));
      sequence.SetDrafts(std::move(drafts));
    }
    const uint32_t first = sequence.submitted();
    const uint32_t end = std::min(sequence.ready(), first + 9);
    EXPECT_GT(end, first);
    EXPECT_LE(end, sequence.max_positions()) << "beyond the KV that is its own";
    EXPECT_LE(first, kv.size()) << "a gap in the KV";
    sequence.MarkSubmitted(end - first);
    kv.resize(first);
    for (uint32_t position = first; position < end; ++position) {
      kv.push_back(sequence.token(position));
    }
    std::vector<uint32_t> wanted;
    for (uint32_t position = first; position < end; ++position) {
      if (sequence.WantsLogits(position)) wanted.push_back(position);
    }
    for (const uint32_t position : wanted) {
      sequence.TakeLogits(position, LogitsAfter(absl::MakeSpan(kv).first(position + 1)));
    }
    sequence.TakePosition(end - 1);
    ++run.steps;
    for (uint32_t position = 0; position < sequence.submitted(); ++position) {
      EXPECT_EQ(kv[position], sequence.token(position)) << "KV of a token that was not accepted";
    }
    sequence.TakeVerification();
  }
  while (auto event = generation->Next(absl::ZeroDuration())) {
    run.events.push_back(Describe(*event));
    if (event->token.has_value()) run.output.push_back(event->token->token);
    run.accepted = event->accepted_tokens;
    run.rejected = event->rejected_tokens;
  }
  return run;
}

std::vector<int32_t> NoDrafts(const Sequence&) { return {}; }

GenerationInput RandomInput(Random& random) {
  GenerationInput input;
  for (uint64_t i = random.Below(30) + 1; i > 0; --i) {
    input.prompt.push_back(static_cast<int32_t>(random.Below(40)));
  }
  input.max_tokens = static_cast<uint32_t>(1 + random.Below(60));
  SamplingOptions& sampling = input.sampling;
  sampling.seed = random.Next();
  sampling.temperature = random.Below(3) == 0 ? 0 : static_cast<float>(random.Uniform()) * 1.5f;
  if (random.Below(3) == 0) sampling.top_k = static_cast<int32_t>(1 + random.Below(30));
  if (random.Below(3) == 0) sampling.top_p = static_cast<float>(random.Uniform());
  if (random.Below(3) == 0) sampling.min_p = static_cast<float>(random.Uniform()) / 4;
  if (random.Below(3) == 0) sampling.repetition_penalty = 1.3f;
  if (random.Below(3) == 0) sampling.frequency_penalty = 0.7f;
  if (random.Below(3) == 0) sampling.presence_penalty = -0.4f;
  if (random.Below(3) == 0) input.logit_bias = {{5, 3.f}, {7, -100.f}};
  if (random.Below(2) == 0) input.logprobs = static_cast<int>(random.Below(4));
  input.prompt_logprobs = input.logprobs.has_value() && random.Below(2) == 0;
  input.ignore_eos = random.Below(2) == 0;
  if (random.Below(3) == 0) {
    input.stop = {Seedling().tokenizer->Piece(static_cast<int32_t>(random.Below(40)), false)};
    if (input.stop[0].empty()) input.stop.clear();
  }
  return input;
}

// Drafts that know the text, and are wrong now and then.
Drafter MostlyRight(const Yield& truth, Random& random) {
  return [&](const Sequence& sequence) {
    std::vector<int32_t> drafts;
    const size_t done = sequence.known() - sequence.prompt_tokens();
    for (size_t i = done; i < std::min(truth.output.size(), done + random.Below(17)); ++i) {
      const bool right = random.Below(8) != 0;
      drafts.push_back(right ? truth.output[i] : static_cast<int32_t>(random.Below(1024)));
    }
    if (random.Below(4) == 0) drafts.push_back(Seedling().tokenizer->eos());
    return drafts;
  };
}

TEST(Sequence, YieldsTheSameBitsWithAnyDrafts) {
  Random random(11);
  uint64_t accepted = 0;
  uint64_t rejected = 0;
  for (int round = 0; round < 400; ++round) {
    const GenerationInput input = RandomInput(random);
    const Yield truth = Generate(input, NoDrafts);
    ASSERT_EQ(truth.accepted + truth.rejected, 0u);
    const Yield drafted = Generate(input, MostlyRight(truth, random));
    ASSERT_EQ(drafted.events, truth.events) << "round " << round;
    accepted += drafted.accepted;
    rejected += drafted.rejected;
  }
  EXPECT_GT(accepted, 1000u);
  EXPECT_GT(rejected, 1000u);
}

TEST(Sequence, EveryAcceptedDraftSavesAStep) {
  Random random(12);
  GenerationInput input = RandomInput(random);
  input.ignore_eos = true;
  input.stop.clear();
  input.max_tokens = 60;
  const Yield truth = Generate(input, NoDrafts);
  const Yield drafted = Generate(input, MostlyRight(truth, random));
  EXPECT_EQ(drafted.steps + drafted.accepted, truth.steps);
}

TEST(Sequence, DraftsNeverReachBeyondTheLastToken) {
  GenerationInput input;
  input.prompt = {1, 2, 3};
  input.max_tokens = 5;
  input.ignore_eos = true;
  Sequence sequence(SequenceId{1}, 0, input, std::make_shared<Generation>(1),
                    *Seedling().tokenizer);
  EXPECT_EQ(sequence.draft_room(), 0u) << "the prompt comes first";
  sequence.MarkSubmitted(2);
  EXPECT_EQ(sequence.draft_room(), 4u);
  sequence.SetDrafts({4, 4, 4, 4});
  EXPECT_EQ(sequence.ready(), 7u);
  sequence.MarkSubmitted(2);  // the step had room for one draft
  EXPECT_EQ(sequence.ready(), 4u);
  EXPECT_EQ(sequence.draft_room(), 0u) << "they are on their way";
  sequence.Restart(0);
  EXPECT_EQ(sequence.ready(), 3u);
}

TEST(Sequence, SaysWhatBecameOfItsDrafts) {
  GenerationInput input;
  input.prompt = {1, 2, 3};
  input.max_tokens = 20;
  input.ignore_eos = true;
  input.sampling.temperature = 0;
  Sequence sequence(SequenceId{1}, 0, input, std::make_shared<Generation>(1),
                    *Seedling().tokenizer);
  std::vector<float> logits(Seedling().config.vocab);
  logits[7] = 1;
  sequence.MarkSubmitted(2);
  sequence.SetDrafts({7, 8, 7});
  sequence.MarkSubmitted(4);
  EXPECT_FALSE(sequence.TakeVerification().has_value());
  for (uint32_t position = 2; position < 6; ++position) {
    EXPECT_TRUE(position > 3 || sequence.SamplesAt(position));
    sequence.TakeLogits(position, logits);
  }
  EXPECT_EQ(sequence.known(), 5u);
  EXPECT_EQ(sequence.submitted(), 4u);
  const auto verification = sequence.TakeVerification();
  ASSERT_TRUE(verification.has_value());
  EXPECT_EQ(verification->proposed, 3u);
  EXPECT_EQ(verification->accepted, 1u);
  EXPECT_FALSE(sequence.TakeVerification().has_value());
}

TEST(Sequence, AClientMayWantNoDrafts) {
  GenerationInput input;
  input.prompt = {1};
  input.max_tokens = 5;
  input.speculation = false;
  const Sequence sequence(SequenceId{1}, 0, input, std::make_shared<Generation>(1),
                          *Seedling().tokenizer);
  EXPECT_EQ(sequence.draft_room(), 0u);
}

}  // namespace
}  // namespace efedllm
