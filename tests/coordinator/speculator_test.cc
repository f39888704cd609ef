#include "coordinator/speculator.h"

#include "coordinator/serving_world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const char kModel[] = EFEDLLM_SOURCE_DIR "/models/seedling/seedling-q8_0.gguf";

// Sequences over the bundled model, computed here, one step for all of them at a time.
class SpeculatorTest : public testing::Test {
 protected:
  SpeculatorTest() {
    LocalModelOptions options;
    options.context = 512;
    options.kv_type = std::nullopt;
    options.kv_tokens = 8192;
    model_ = *LocalModel::Create(Seedling().file, options, compute_);
  }

  std::shared_ptr<Sequence> Begin(GenerationInput input) {
    ++last_.v;
    return std::make_shared<Sequence>(last_, 0, std::move(input), std::make_shared<Generation>(1),
                                      *Seedling().tokenizer);
  }

  // Until all are finished. Returns the number of steps.
  size_t Generate(Speculator* speculator, absl::Span<const std::shared_ptr<Sequence>> sequences) {
    for (size_t steps = 0;; ++steps) {
      std::vector<Sequence*> running;
      std::vector<Sequence*> decodes;
      for (const auto& sequence : sequences) {
        if (sequence->finished()) continue;
        running.push_back(sequence.get());
        if (sequence->submitted() + 1 == sequence->known()) decodes.push_back(sequence.get());
      }
      if (running.empty()) return steps;
      if (speculator != nullptr) {
        const auto seconds = [](uint32_t rows) { return 0.1 + 0.001 * rows; };
        const auto rows = static_cast<uint32_t>(decodes.size());
        speculator->Draft(decodes,
                          {.seconds = seconds, .rows = rows, .tokens = double(rows), .room = 64});
      }
      Take(running);
      if (speculator == nullptr) continue;
      for (Sequence* sequence : running) speculator->Observe(*sequence);
    }
  }

  std::string Metrics() { return prometheus::TextSerializer().Serialize(registry_.Collect()); }

  SystemClock clock_;
  prometheus::Registry registry_;
  Compute compute_ = *Compute::Create(1, "auto");

 private:
  void Take(const std::vector<Sequence*>& running) {
    Step step;
    std::vector<int32_t> tokens;
    for (Sequence* sequence : running) {
      const uint32_t first = sequence->submitted();
      for (uint32_t i = first; i < sequence->ready(); ++i) tokens.push_back(sequence->token(i));
      step.spans.push_back({sequence->id(), first, sequence->ready() - first});
      sequence->MarkSubmitted(sequence->ready() - first);
    }
    Matrix logits(tokens.size(), Seedling().config.vocab);
    ASSERT_TRUE(model_->Forward(step, tokens, logits.ref()).ok());
    size_t row = 0;
    for (size_t i = 0; i < running.size(); ++i) {
      for (uint32_t t = 0; t < step.spans[i].tokens; ++t, ++row) {
        const uint32_t position = step.spans[i].first_position + t;
        running[i]->TakeLogits(position, {logits.row(row), logits.cols()});
      }
    }
  }

  std::unique_ptr<LocalModel> model_;
  SequenceId last_{0};
};

const char kRepeating[] = "one two three four one two three four one two three four one two";

TEST_F(SpeculatorTest, TextThatRepeatsIsGuessedFromItself) {
  Speculator speculator(nullptr, registry_);
  const auto plain = Begin(Ask(kRepeating, 60));
  const auto drafted = Begin(Ask(kRepeating, 60));
  const size_t steps = Generate(nullptr, {plain});
  EXPECT_LT(Generate(&speculator, {drafted}), steps / 2);
  EXPECT_EQ(drafted->tokens(), plain->tokens());
  EXPECT_THAT(Metrics(), HasSubstr("efedllm_speculation_accepted_tokens_total{source=\"ngram\"}"));
  EXPECT_THAT(Metrics(),
              Not(HasSubstr("efedllm_speculation_accepted_tokens_total{source=\"ngram\"} 0")));
}

TEST_F(SpeculatorTest, ADraftModelThatKnowsEverythingIsAlwaysRightWhenSamplingToo) {
  const auto draft = *DraftModel::Load({kModel, 512, 4}, Seedling(), clock_, compute_);
  Speculator speculator(draft.get(), registry_);
  GenerationInput input = Ask("Once upon a time", 60);
  input.sampling.temperature = 1;
  input.sampling.frequency_penalty = 0.5;
  input.sampling.seed = 5;
  input.logit_bias = {{300, 2.f}};
  const auto plain = Begin(input);
  const auto drafted = Begin(input);
  const size_t steps = Generate(nullptr, {plain});
  EXPECT_LT(Generate(&speculator, {drafted}), steps / 2);
  EXPECT_EQ(drafted->tokens(), plain->tokens());
}

TEST_F(SpeculatorTest, ManySequencesGetWhatTheyWouldGetAlone) {
  const auto draft = *DraftModel::Load({kModel, 512, 4}, Seedling(), clock_, compute_);
  Speculator speculator(draft.get(), registry_);
  std::vector<std::shared_ptr<Sequence>> plain;
  std::vector<std::shared_ptr<Sequence>> drafted;
  for (int i = 0; i < 7; ++i) {
    GenerationInput input = Ask(i % 2 == 0 ? kRepeating : "The dog", 20 + 5 * i);
    input.sampling.temperature = 0.3f * i;
    input.sampling.seed = static_cast<uint64_t>(i);
    input.ignore_eos = i % 3 != 0;
    input.speculation = i != 6;
    plain.push_back(Begin(input));
    drafted.push_back(Begin(input));
  }
  Generate(nullptr, plain);
  Generate(&speculator, drafted);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(drafted[i]->tokens(), plain[i]->tokens());
  drafted.clear();
}

}  // namespace
}  // namespace efedllm
