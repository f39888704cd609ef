#include "coordinator/draft_model.h"

#include <algorithm>
#include <filesystem>

#include "coordinator/serving_world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

const char kModel[] = EFEDLLM_SOURCE_DIR "/models/seedling/seedling-q8_0.gguf";

// The bundled model drafts for itself, so what is right is known.
class DraftModelTest : public testing::Test {
 protected:
  std::unique_ptr<DraftModel> Load(uint32_t context = 512, size_t max_sequences = 4) {
    auto model = DraftModel::Load({kModel, context, max_sequences}, Seedling(), clock_, compute_);
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }

  static std::vector<int32_t> Tokens(const std::string& text) {
    return Seedling().tokenizer->Encode(text, {.add_special = true, .parse_special = true});
  }

  static DraftModel::Request Ask(DraftModel::Session& session, absl::Span<const int32_t> tokens,
                                 uint32_t most, float temperature = 0) {
    SamplingOptions options;
    options.temperature = temperature;
    options.seed = 3;
    return {&session, tokens, Sampler(options, tokens), most, [](int32_t) { return false; }, {}};
  }

  std::vector<int32_t> Draft(DraftModel& model, DraftModel::Session& session,
                             absl::Span<const int32_t> tokens, uint32_t most,
                             float temperature = 0) {
    std::vector<DraftModel::Request> requests = {Ask(session, tokens, most, temperature)};
    EXPECT_TRUE(model.Draft(absl::MakeSpan(requests)).ok());
    return requests[0].drafts;
  }

  // What the model itself says, one token at a time.
  std::vector<int32_t> Truth(std::vector<int32_t> tokens, size_t count, float temperature = 0) {
    LocalModelOptions options;
    options.context = 512;
    options.kv_type = std::nullopt;
    const auto model = *LocalModel::Create(Seedling().file, options, compute_);
    SamplingOptions sampling;
    sampling.temperature = temperature;
    sampling.seed = 3;
    Sampler sampler(sampling, tokens);
    std::vector<int32_t> said;
    while (said.size() < count) {
      std::vector<float> last;
      EXPECT_TRUE(model
                      ->Evaluate(tokens, 0,
                                 [&](size_t, absl::Span<const float> logits) {
                                   last.assign(logits.begin(), logits.end());
                                 })
                      .ok());
      said.push_back(sampler.Sample(last));
      tokens.push_back(said.back());
    }
    return said;
  }

  SystemClock clock_;
  Compute compute_ = *Compute::Create(1, "auto");
};

TEST_F(DraftModelTest, SaysWhatTheModelWouldSay) {
  const auto model = Load();
  const auto session = model->Begin();
  std::vector<int32_t> tokens = Tokens("Once upon a time");
  const std::vector<int32_t> truth = Truth(tokens, 20);
  for (size_t said = 0; said < 20;) {
    const std::vector<int32_t> drafts = Draft(*model, *session, tokens, 4);
    ASSERT_EQ(drafts.size(), 4u);
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(drafts[i], truth[said + i]);
    tokens.insert(tokens.end(), drafts.begin(), drafts.end());
    said += 4;
  }
  EXPECT_GT(model->seconds_per_token(), 0);
}

TEST_F(DraftModelTest, MeetsTheSameDraws) {
  const auto model = Load();
  const auto session = model->Begin();
  const std::vector<int32_t> tokens = Tokens("The cat");
  EXPECT_EQ(Draft(*model, *session, tokens, 12, 0.9f), Truth(tokens, 12, 0.9f));
}

TEST_F(DraftModelTest, ForgetsWhatWasNotAccepted) {
  const auto model = Load();
  const auto session = model->Begin();
  std::vector<int32_t> tokens = Tokens("What is 27 + 48?");
  for (int round = 0; round < 5; ++round) {
    ASSERT_EQ(Draft(*model, *session, tokens, 6), Truth(tokens, 6)) << round;
    tokens.push_back(300 + round);  // another one than was drafted, most likely
    tokens.push_back(400 + round);
  }
}

TEST_F(DraftModelTest, DraftsForManyAtOnce) {
  const auto model = Load();
  std::vector<std::unique_ptr<DraftModel::Session>> sessions;
  std::vector<std::vector<int32_t>> texts = {Tokens("Once"), Tokens("The dog and"), Tokens("12")};
  std::vector<DraftModel::Request> requests;
  for (size_t i = 0; i < texts.size(); ++i) {
    sessions.push_back(model->Begin());
    requests.push_back(Ask(*sessions[i], texts[i], static_cast<uint32_t>(2 + 3 * i)));
  }
  ASSERT_TRUE(model->Draft(absl::MakeSpan(requests)).ok());
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(requests[i].drafts, Truth(texts[i], 2 + 3 * i)) << i;
  }
}

TEST_F(DraftModelTest, CatchesUpWithALongPromptBitByBit) {
  const auto model = Load();
  const auto session = model->Begin();
  std::vector<int32_t> tokens = Tokens("Once");
  while (tokens.size() < 3 * DraftModel::kCatchUpRows) tokens.push_back(tokens[tokens.size() / 2]);
  EXPECT_THAT(Draft(*model, *session, tokens, 4), IsEmpty());
  EXPECT_THAT(Draft(*model, *session, tokens, 4), IsEmpty());
  EXPECT_EQ(Draft(*model, *session, tokens, 4), Truth(tokens, 4));
}

TEST_F(DraftModelTest, EndsWhereTheTextEnds) {
  const auto model = Load();
  const auto session = model->Begin();
  const std::vector<int32_t> tokens = Tokens("Once upon");
  const std::vector<int32_t> truth = Truth(tokens, 3);
  std::vector<DraftModel::Request> requests = {Ask(*session, tokens, 9)};
  requests[0].ends_at = [&](int32_t token) { return token == truth[2]; };
  ASSERT_TRUE(model->Draft(absl::MakeSpan(requests)).ok());
  EXPECT_LE(requests[0].drafts.size(), 3u);
}

TEST_F(DraftModelTest, KeepsToItsMemoryAndContext) {
  const auto model = Load(/*context=*/128, /*max_sequences=*/2);  // 4 pages
  const std::vector<int32_t> tokens = Tokens("Once upon a time");
  std::vector<std::unique_ptr<DraftModel::Session>> sessions;
  for (int i = 0; i < 5; ++i) {
    sessions.push_back(model->Begin());
    EXPECT_EQ(Draft(*model, *sessions.back(), tokens, 4).size(), i < 4 ? 4u : 0u) << i;
  }
  EXPECT_EQ(model->kv_tokens_used(), 256u);
  EXPECT_GT(model->memory_bytes(), 5'000'000u);
  sessions.erase(sessions.begin());
  EXPECT_EQ(Draft(*model, *sessions.back(), tokens, 4).size(), 4u);
  sessions.clear();
  const auto session = model->Begin();
  std::vector<int32_t> full(128, 5);
  for (int i = 0; i < 4; ++i) EXPECT_THAT(Draft(*model, *session, full, 4), IsEmpty());
}

TEST_F(DraftModelTest, NeedsTheSameVocabulary) {
  EXPECT_EQ(
      DraftModel::Load({"/nowhere.gguf", 128, 1}, Seedling(), clock_, compute_).status().code(),
      absl::StatusCode::kNotFound);
  const std::string stories = EFEDLLM_SOURCE_DIR "/../shared/parity/stories260K/stories260K.gguf";
  if (!std::filesystem::exists(stories)) GTEST_SKIP() << "no parity pack here";
  const auto other = DraftModel::Load({stories, 128, 1}, Seedling(), clock_, compute_);
  EXPECT_THAT(std::string(other.status().message()),
              HasSubstr("its vocabulary has 512 tokens, that of seedling-q8_0 has 1024"));
}

}  // namespace
}  // namespace efedllm
