#include "app/coded_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "app/coded_model_choice.h"
#include "model/text_quality.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

constexpr SequenceId kCoded{2};

// The bundled model in stages of two layers.
class CodedModelTest : public ::testing::Test {
 protected:
  CodedModelTest()
      : file_(*ModelFile::Open(EFEDLLM_SOURCE_DIR "/models/seedling/seedling-f16.gguf")),
        compute_(*Compute::Create(1, "auto")) {
    LocalModelOptions options;
    options.stages = *EqualStages(8, 4);
    options.context = 128;
    options.kv_tokens = 1024;
    model_ = *LocalModel::Create(file_, options, compute_);
    std::vector<int32_t> tokens(200);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(300 + i * 7 % 600);
    text_ = *CutText(tokens, 1, 101);
  }

  Divergence Measure(CodedModel& coded) {
    ModelLogits source(*model_, kCoded), reference(*model_);
    CodedLogits logits(source, coded);
    return *MeasureDivergence(logits, reference, text_);
  }

  std::vector<std::optional<BoundaryCoding>> All(const char* codec) {
    return std::vector<std::optional<BoundaryCoding>>(
        3, CodecChoice::Parse(codec)->For(nullptr, 256, 3));
  }

  const ModelFile file_;
  Compute compute_;
  std::unique_ptr<LocalModel> model_;
  TextWindows text_;
};

TEST_F(CodedModelTest, F32ChangesNothingAndF16HardlyAnything) {
  CodedModel coded(*model_, {});
  EXPECT_EQ(coded.boundaries(), (std::vector<uint32_t>{2, 4, 6}));
  ASSERT_TRUE(coded.Use(All("lossless")).ok());
  EXPECT_EQ(Measure(coded).max_kl, 0);
  ASSERT_TRUE(coded.Use(All("f16")).ok());
  const Divergence f16 = Measure(coded);
  EXPECT_GT(f16.max_kl, 0);
  EXPECT_LT(f16.mean_kl, 1e-5);
}

TEST_F(CodedModelTest, CountsFramesWithTheirHeaders) {
  CodedModel coded(*model_, {});
  ASSERT_TRUE(coded.Use(All("f16")).ok());
  Measure(coded);
  ASSERT_EQ(coded.traffic().size(), 3u);
  for (const BoundaryTraffic& traffic : coded.traffic()) {
    EXPECT_EQ(traffic.rows, text_.predictions());
    EXPECT_EQ(traffic.frames, text_.windows.size()) << "a frame takes a whole window";
    EXPECT_EQ(traffic.payload_per_row(), 512);
    EXPECT_GT(traffic.bytes_per_row(), 512.3);
    EXPECT_LT(traffic.bytes_per_row(), 514);
    EXPECT_EQ(traffic.plain_share(), 0);
  }
  EXPECT_GT(coded.traffic()[2].frame_bytes, coded.traffic()[0].frame_bytes) << "one more timing";
}

TEST_F(CodedModelTest, CodesOneBoundaryAlone) {
  CodedModel coded(*model_, {});
  std::vector<std::optional<BoundaryCoding>> codings(3);
  codings[1] = CodecChoice::Parse("int4")->For(nullptr, 256, 3);
  EXPECT_EQ(codings[1]->Label(), "int4 blocks");
  ASSERT_TRUE(coded.Use(codings).ok());
  const double alone = Measure(coded).mean_kl;
  EXPECT_GT(alone, 0);
  EXPECT_EQ(coded.traffic()[0].rows, 0u);
  EXPECT_EQ(coded.traffic()[1].payload_per_row(), 256 / 2 + 2 * 8);
  ASSERT_TRUE(coded.Use(All("int4")).ok());
  EXPECT_GT(Measure(coded).mean_kl, alone);
}

TEST_F(CodedModelTest, LeavesTheModelAsItWas) {
  ModelLogits plain(*model_);
  const auto ignore = [](absl::Span<const float>) { return absl::OkStatus(); };
  const double before = MeasurePerplexity(plain, text_, ignore)->perplexity;
  {
    CodedModel coded(*model_, {});
    ASSERT_TRUE(coded.Use(All("int2")).ok());
    EXPECT_NE(MeasurePerplexity(plain, text_, ignore)->perplexity, before);
    coded.Pause(true);
    EXPECT_EQ(MeasurePerplexity(plain, text_, ignore)->perplexity, before);
  }
  EXPECT_EQ(MeasurePerplexity(plain, text_, ignore)->perplexity, before);
}

TEST_F(CodedModelTest, RefusesACodingWhoseBasisIsMissing) {
  CodedModel coded(*model_, {});
  const absl::Status status = coded.Use(All("klt:0.1"));
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("after layer 2"));
}

TEST(CodecChoice, KnowsLevelsCodecsAndSteps) {
  EXPECT_EQ(CodecChoice::Parse("int8")->For(nullptr, 64, 1).setting.id, CodecId::kInt8);
  EXPECT_EQ(CodecChoice::Parse("int5")->For(nullptr, 64, 1).block_bits, 5u);
  EXPECT_EQ(CodecChoice::Parse("lossless")->For(nullptr, 64, 1).setting.id, CodecId::kF32);
  EXPECT_FALSE(CodecChoice::Parse("lossless")->needs_bases());
  EXPECT_TRUE(CodecChoice::Parse("auto")->needs_bases());
  EXPECT_TRUE(CodecChoice::Parse("scalar:0.2")->needs_bases());
  EXPECT_FALSE(CodecChoice::Parse("int4")->needs_bases());
  // A step that was printed finds itself.
  for (uint8_t step = 0; step <= kMaxStepIndex; ++step) {
    const std::string name = "klt:" + std::to_string(StepSize(step));
    EXPECT_EQ(CodecChoice::Parse(name)->For(nullptr, 64, 1).setting,
              (CodecSetting{CodecId::kKlt, step}))
        << name;
  }
  for (const char* wrong : {"", "int9", "int1", "klt", "klt:", "klt:0", "klt:-1", "klt:nan",
                            "scalar:x", "f16:1", "best"}) {
    EXPECT_FALSE(CodecChoice::Parse(wrong).ok()) << wrong;
  }
}

TEST(IntegerBlocks, RoundToTheirGridAndCountTheirBytes) {
  Matrix rows(2, 40);
  for (size_t i = 0; i < 40; ++i) rows.row(0)[i] = static_cast<float>(i) - 20;
  EXPECT_EQ(RoundToIntegerBlocks(4, rows.ref()), 2u * (2 + 16 + 2 + 4));
  const float scale = rows.row(0)[0] / -7;
  EXPECT_NEAR(scale, 20.0 / 7, 2e-3);
  for (size_t i = 0; i < 32; ++i) {
    const float step = rows.row(0)[i] / scale;
    EXPECT_EQ(step, std::nearbyint(step)) << i;
    EXPECT_LE(std::abs(rows.row(0)[i] - (static_cast<float>(i) - 20)), scale / 2 + 0.01) << i;
  }
  EXPECT_EQ(rows.row(1)[39], 0) << "a block of zeros stays one";
}

}  // namespace
}  // namespace efedllm
