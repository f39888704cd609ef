#include "app/model_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "testing/metadata_builder.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

TEST(ModelReport, SaysWhatTheBundledModelIs) {
  const std::string path = EFEDLLM_SOURCE_DIR "/models/seedling/seedling-q8_0.gguf";
  const ModelFile file = *ModelFile::Open(path);
  const ModelReport report = MakeModelReport(path, file);
  EXPECT_THAT(report.problems, testing::IsEmpty());
  EXPECT_EQ(report.summary.architecture, "llama");
  EXPECT_EQ(report.summary.quantization, "Q8_0");
  ASSERT_TRUE(report.tokenizer.has_value());
  EXPECT_EQ(report.tokenizer->tokens, 1024);
  EXPECT_EQ(report.template_family, "chatml");
  ASSERT_EQ(report.kv.size(), 3u);
  EXPECT_EQ(report.kv[0].bytes_per_token, 8u * 4 * 2 * 32 * 4);
  EXPECT_EQ(report.kv[1].bytes_per_token, 8u * 4 * 2 * 32 * 2);
  EXPECT_EQ(report.kv[2].bytes_per_token, 8u * 4 * 2 * 34);

  const nlohmann::json json = ModelReportJson(report, file);
  EXPECT_EQ(json.at("config").at("layers"), 8);
  EXPECT_EQ(json.at("supported"), true);
  EXPECT_EQ(json.at("tensors").size(), file.tensors().size());
}

TEST(ModelReport, NamesWhatIsNotSupportedAndSaysTheRest) {
  MetadataBuilder builder;
  builder.Add("general.architecture", "mamba")
      .AddTensor("a", 0, {4}, std::string(16, '\0'))
      .AddTensor("b", 16, {256}, std::string(66, '\0'));
  const std::string bytes = builder.Build();
  const ModelFile file =
      *ModelFile::Parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  const ModelReport report = MakeModelReport("m.gguf", file);
  EXPECT_FALSE(report.config.has_value());
  ASSERT_FALSE(report.problems.empty());
  EXPECT_THAT(report.problems[0], HasSubstr("mamba"));
  const nlohmann::json json = ModelReportJson(report, file);
  EXPECT_EQ(json.at("supported"), false);
  EXPECT_TRUE(json.at("config").is_null());
  EXPECT_TRUE(json.at("tokenizer").is_null());
  EXPECT_EQ(json.at("tensors").at(1).at("type"), "IQ2_XXS");
}

TEST(ModelReport, TellsIntegerFromFloatingPointWork) {
  TypeSummary type;
  type.type = "Q4_K";
  EXPECT_THAT(HowItRuns(type), HasSubstr("can't"));
  type.supported = true;
  EXPECT_THAT(HowItRuns(type), HasSubstr("int8"));
  type.type = "BF16";
  EXPECT_THAT(HowItRuns(type), HasSubstr("f32"));
}

}  // namespace
}  // namespace efedllm
