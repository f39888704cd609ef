#include "model/model_summary.h"

#include <gtest/gtest.h>

#include "model/bits.h"
#include "model/gguf_builder.h"

namespace efedllm {
namespace {

ModelSummary SummaryOf(GgufBuilder builder) {
  const std::string bytes = builder.Build();
  return SummarizeModel(*ModelFile::Parse(BytesOf(bytes)));
}

TEST(ModelSummary, CountsTensorsByType) {
  GgufBuilder builder;
  builder.String("general.architecture", "llama")
      .Uint("general.file_type", 7)
      .Tensor("a", 8, {64, 2}, std::string(136, '\0'))
      .Tensor("b", 0, {3}, std::string(12, '\0'))
      .Tensor("c", 8, {32, 1}, std::string(34, '\0'));
  const ModelSummary summary = SummaryOf(builder);
  EXPECT_EQ(summary.quantization, "Q8_0");
  EXPECT_EQ(summary.parameters, 128u + 3 + 32);
  EXPECT_EQ(summary.bytes, 136u + 12 + 34);
  ASSERT_EQ(summary.types.size(), 2u);
  EXPECT_EQ(summary.types[0].type, "Q8_0");
  EXPECT_EQ(summary.types[0].tensors, 2u);
  EXPECT_EQ(summary.types[0].parameters, 160u);
  EXPECT_TRUE(summary.types[0].supported);
}

TEST(ModelSummary, SaysWhatItCanOfAModelThatIsNotSupported) {
  GgufBuilder builder;
  builder.String("general.architecture", "mamba\x1b[31m").Tensor("a", 0, {2}, std::string(8, '\0'));
  const ModelSummary summary = SummaryOf(builder);
  EXPECT_EQ(summary.architecture.find('\x1b'), std::string::npos) << "a terminal shows it";
  EXPECT_EQ(summary.quantization, "F32") << "the type of most bytes";
}

TEST(ModelSummary, TitlesAsLlamaBenchDoes) {
  ModelSummary summary;
  summary.architecture = "llama";
  summary.quantization = "Q4_K_M";
  summary.parameters = 1'100'000'000;
  EXPECT_EQ(summary.title(), "llama 1.1B Q4_K_M");
  EXPECT_EQ(FormatParameters(1'100'000'000), "1.10 B");
  EXPECT_EQ(FormatParameters(5'240'000), "5.24 M");
  EXPECT_EQ(FormatParameters(12), "12");
}

}  // namespace
}  // namespace efedllm
