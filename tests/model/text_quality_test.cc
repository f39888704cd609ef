#include "model/text_quality.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/random.h"
#include "model/bits.h"
#include "model/gguf_builder.h"
#include "model/logits_file.h"
#include "model/temp_dir.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

absl::Status Ignore(absl::Span<const float>) { return absl::OkStatus(); }

// The same distribution at every position.
class FixedLogits final : public LogitsSource {
 public:
  explicit FixedLogits(std::vector<float> logits) : logits_(std::move(logits)) {}
  uint32_t vocab() const override { return static_cast<uint32_t>(logits_.size()); }
  absl::Status Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef out) override {
    EXPECT_EQ(first, first == 0 ? 0 : next_) << "in order";
    next_ = first + static_cast<uint32_t>(tokens.size());
    for (size_t row = 0; row < out.rows; ++row) {
      std::copy(logits_.begin(), logits_.end(), out.row(row));
    }
    return absl::OkStatus();
  }

 private:
  const std::vector<float> logits_;
  uint32_t next_ = 0;
};

TEST(CutText, PutsBosBeforeEachWindow) {
  const std::vector<int32_t> tokens = {5, 6, 7, 8, 9};
  EXPECT_EQ(CutText(tokens, 1, 8)->windows,
            (std::vector<std::vector<int32_t>>{{1, 5, 6, 7, 8, 9}}));
  EXPECT_EQ(CutText(tokens, 1, 3)->windows,
            (std::vector<std::vector<int32_t>>{{1, 5, 6}, {1, 7, 8}, {1, 9}}));
  EXPECT_EQ(CutText(tokens, 1, 3)->predictions(), 5u);
}

TEST(CutText, WithoutBosAWindowsFirstTokenIsNotPredicted) {
  const std::vector<int32_t> tokens = {5, 6, 7, 8, 9};
  EXPECT_EQ(CutText(tokens, -1, 2)->windows, (std::vector<std::vector<int32_t>>{{5, 6}, {7, 8}}));
  EXPECT_FALSE(CutText({tokens.data(), 1}, -1, 9).ok());
  EXPECT_FALSE(CutText({}, 1, 9).ok());
  EXPECT_FALSE(CutText(tokens, 1, 1).ok());
}

TEST(TextWindows, DigestSeesTokensAndCuts) {
  const std::vector<int32_t> tokens = {5, 6, 7, 8, 9};
  EXPECT_EQ(CutText(tokens, 1, 3)->digest(), CutText(tokens, 1, 3)->digest());
  EXPECT_NE(CutText(tokens, 1, 3)->digest(), CutText(tokens, 1, 4)->digest());
  EXPECT_NE(CutText(tokens, 1, 3)->digest(), CutText(tokens, 2, 3)->digest());
}

TEST(Perplexity, OfAUniformDistributionIsTheVocabulary) {
  FixedLogits uniform(std::vector<float>(50, 3.0f));
  const Perplexity result = *MeasurePerplexity(uniform, *CutText({1, 2, 3, 4}, 0, 100), Ignore);
  EXPECT_NEAR(result.perplexity, 50, 1e-9);
  EXPECT_NEAR(result.standard_error, 0, 1e-6);
  EXPECT_EQ(result.tokens, 4u);
}

TEST(Perplexity, TakesLogitsThatWouldOverflowAnExp) {
  FixedLogits large({10000, 10000 + std::log(3.0f)});
  EXPECT_NEAR(MeasurePerplexity(large, *CutText({0, 0}, 0, 9), Ignore)->perplexity, 4, 1e-2);
  EXPECT_NEAR(LogProbability({-80000.0f, 0.0f}, 0), -80000, 1e-6);
}

TEST(Perplexity, WalksLongTextsInOrderAndHandsOverEachRow) {
  FixedLogits source({0, 1, 2});
  std::vector<int32_t> tokens(500);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % 3);
  size_t rows = 0;
  const auto result = MeasurePerplexity(source, *CutText(tokens, 0, 200), [&](auto logits) {
    rows += logits.size() == 3;
    return absl::OkStatus();
  });
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->tokens, 500u);
  EXPECT_EQ(rows, 500u);
}

TEST(Perplexity, RefusesTokensOutsideAndLogitsThatAreNotFinite) {
  FixedLogits source({0, 1, 2});
  EXPECT_TRUE(
      absl::IsInvalidArgument(MeasurePerplexity(source, *CutText({0, 3}, 0, 9), Ignore).status()));
  FixedLogits nan({0, std::numeric_limits<float>::quiet_NaN(), 2});
  EXPECT_TRUE(absl::IsDataLoss(MeasurePerplexity(nan, *CutText({0, 1}, 0, 9), Ignore).status()));
}

TEST(Divergence, IsTheTextbooksAndZeroOfItself) {
  FixedLogits p({0, 0}), q({std::log(0.9f), std::log(0.1f)});
  const TextWindows text = *CutText({0, 1, 0}, 0, 9);
  const Divergence result = *MeasureDivergence(q, p, text);  // of the model q from the reference p
  const double expected = 0.5 * std::log(0.5 / 0.9) + 0.5 * std::log(0.5 / 0.1);
  EXPECT_NEAR(result.mean_kl, expected, 1e-6);
  EXPECT_NEAR(result.max_kl, expected, 1e-6);
  EXPECT_EQ(result.top1_agreement, 1);  // of equals the lower id counts
  EXPECT_NEAR(result.reference.perplexity, 2, 1e-9);
  const Divergence none = *MeasureDivergence(q, q, text);
  EXPECT_EQ(none.mean_kl, 0);
  EXPECT_EQ(none.model.perplexity, none.reference.perplexity);
}

TEST(Divergence, RefusesAnotherVocabulary) {
  FixedLogits two({0, 1}), three({0, 1, 2});
  const auto status = MeasureDivergence(two, three, *CutText({0, 1}, 0, 9)).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("vocabularies differ"));
}

struct Loaded {
  explicit Loaded(const LocalModelOptions& options = {})
      : bytes(TinyLlama().Build()),
        file(*ModelFile::Parse(BytesOf(bytes))),
        compute(*Compute::Create(2, "auto")),
        model(*LocalModel::Create(file, options, compute)) {}

  const std::string bytes;
  const ModelFile file;
  Compute compute;
  std::unique_ptr<LocalModel> model;
};

TextWindows SomeText() {
  std::vector<int32_t> tokens(100);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % 20);
  return *CutText(tokens, 1, 33);
}

LocalModelOptions TwoStages() {
  LocalModelOptions options;
  options.stages = {{0, 1}, {1, 2}};
  options.kv_tokens = 1000;
  options.max_tokens = 10;
  return options;
}

TEST(EqualStages, GiveTheFirstOnesWhatIsLeftOver) {
  EXPECT_EQ(*EqualStages(5, 3), (std::vector<LayerRange>{{0, 2}, {2, 4}, {4, 5}}));
  EXPECT_EQ(*EqualStages(8, 4), (std::vector<LayerRange>{{0, 2}, {2, 4}, {4, 6}, {6, 8}}));
  EXPECT_FALSE(EqualStages(2, 3).ok());
  EXPECT_FALSE(EqualStages(2, 0).ok());
}

TEST(KeptLogits, AreThoseOfTheModelAgainAndAgain) {
  Loaded loaded(TwoStages());
  const TextWindows text = SomeText();
  ModelLogits whole(*loaded.model);
  const auto kept = *KeptLogits::Create(*loaded.model, text, SequenceId{2});
  for (int pass = 0; pass < 2; ++pass) {
    EXPECT_EQ(MeasureDivergence(*kept, whole, text)->max_kl, 0) << pass;
  }
}

TEST(DecodedLogits, AreThoseOfWholeWindows) {
  Loaded loaded(TwoStages());
  const TextWindows text = SomeText();
  for (const uint32_t batch : {1u, 2u, 8u}) {
    ModelLogits whole(*loaded.model);
    DecodedLogits decoded(*loaded.model, text, batch, SequenceId{2});
    EXPECT_EQ(MeasureDivergence(decoded, whole, text)->max_kl, 0) << batch;
  }
}

TEST(BoundaryHook, SeesEveryRowBetweenTheStagesAndMayChangeIt) {
  Loaded loaded(TwoStages());
  const TextWindows text = SomeText();
  const double plain = [&] {
    ModelLogits source(*loaded.model);
    return MeasurePerplexity(source, text, Ignore)->perplexity;
  }();
  uint64_t rows = 0;
  std::vector<uint32_t> boundaries;
  loaded.model->SetBoundaryHook([&](const Step& step, uint32_t layers, MatrixRef hidden) {
    EXPECT_EQ(hidden.rows, step.tokens());
    EXPECT_LE(hidden.rows, 10u) << "the model's max_tokens";
    rows += hidden.rows;
    boundaries.push_back(layers);
    return absl::OkStatus();
  });
  ModelLogits source(*loaded.model);
  EXPECT_EQ(MeasurePerplexity(source, text, Ignore)->perplexity, plain);
  EXPECT_EQ(rows, text.predictions());
  EXPECT_THAT(boundaries, ::testing::Each(1u));

  loaded.model->SetBoundaryHook([](const Step&, uint32_t, MatrixRef hidden) {
    for (float& value : hidden.span()) value = 0;
    return absl::OkStatus();
  });
  EXPECT_NE(MeasurePerplexity(source, text, Ignore)->perplexity, plain);
  loaded.model->SetBoundaryHook(
      [](const Step&, uint32_t, MatrixRef) { return absl::CancelledError("enough"); });
  EXPECT_TRUE(absl::IsCancelled(MeasurePerplexity(source, text, Ignore).status()));
}

TEST(LogitsFile, GivesBackWhatTheModelSaid) {
  Loaded loaded;
  TempDir dir;
  const std::string path = dir.File("logits");
  std::vector<int32_t> tokens(100);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % 20);
  const TextWindows text = *CutText(tokens, 1, 33);
  ModelLogits source(*loaded.model);
  auto writer = *LogitsWriter::Create(path, text, source.vocab());
  EXPECT_FALSE(IsLogitsFile(path)) << "not before it is finished";
  const Perplexity written = *MeasurePerplexity(
      source, text, [&](absl::Span<const float> logits) { return writer->Append(logits); });
  ASSERT_TRUE(writer->Finish().ok());
  ASSERT_TRUE(IsLogitsFile(path));

  auto file = *FileLogits::Open(path, text);
  EXPECT_EQ(MeasurePerplexity(*file, text, Ignore)->perplexity, written.perplexity);
  file = *FileLogits::Open(path, text);
  const Divergence none = *MeasureDivergence(source, *file, text);
  EXPECT_EQ(none.max_kl, 0);
  EXPECT_EQ(none.top1_agreement, 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(FileLogits::Open(path, *CutText(tokens, 1, 34)).status()));
}

TEST(LogitsFile, RefusesWhatIsNotOneOrIsCutOff) {
  TempDir dir;
  const TextWindows text = *CutText({1, 2, 3}, 0, 9);
  const std::string path = dir.File("logits");
  auto writer = *LogitsWriter::Create(path, text, 4);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(writer->Append({1, 2, 3, 4}).ok());
  ASSERT_TRUE(writer->Finish().ok());
  ASSERT_TRUE(FileLogits::Open(path, text).ok());
  const std::string whole = *ReadFile(path, 1000);
  for (const size_t cut : {size_t{0}, size_t{7}, size_t{63}, size_t{64}, whole.size() - 1}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        FileLogits::Open(dir.Write("cut", whole.substr(0, cut)), text).status()));
  }
  for (const size_t byte : {0, 8, 12, 15, 16, 23}) {
    std::string damaged = whole;
    damaged[byte] = static_cast<char>(damaged[byte] ^ 0x80);
    EXPECT_FALSE(FileLogits::Open(dir.Write("damaged", damaged), text).ok()) << byte;
  }
  EXPECT_TRUE(absl::IsNotFound(FileLogits::Open(dir.File("none"), text).status()));
}

TEST(LogitsFile, AnUnfinishedOneLeavesNothingBehind) {
  TempDir dir;
  { auto writer = *LogitsWriter::Create(dir.File("logits"), *CutText({1, 2}, 0, 9), 4); }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace efedllm
