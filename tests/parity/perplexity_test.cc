// Perplexity of a really trained model, beside llama.cpp's.
#include <gtest/gtest.h>

#include <cmath>

#include "model/text_quality.h"
#include "parity/parity_pack.h"

namespace efedllm {
namespace {

class Stories : public testing::Test {
 protected:
  void SetUp() override {
    if (ParityDir().empty()) GTEST_SKIP() << "there is no parity pack beside the checkout";
  }

  // The text's perplexity in F32, and the largest difference of a log-probability from float64's.
  void Compare(const std::string& text) {
    const std::string path = ParityDir() + "/stories260K/stories260K";
    const nlohmann::json answer = ReadJson(path + ".json").at(text);
    LoadedModel loaded(path + ".gguf", 2, "auto");
    ModelLogits source(*loaded.model);
    const TextWindows windows{{answer.at("tokens").get<std::vector<int32_t>>()}};
    const auto expected = answer.at("logprob_f64").get<std::vector<double>>();
    size_t at = 0;
    const auto result = MeasurePerplexity(source, windows, [&](absl::Span<const float> logits) {
      EXPECT_NEAR(LogProbability(logits, windows.windows[0][at + 1]), expected.at(at), 1e-4) << at;
      ++at;
      return absl::OkStatus();
    });
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(at, expected.size());
    EXPECT_NEAR(result->perplexity, answer.at("perplexity").get<double>(), 5e-5);
  }
};

TEST_F(Stories, PerplexityOfItsOwnTextIsLlamaCpps) { Compare("forced"); }
TEST_F(Stories, PerplexityOfAForeignTextIsLlamaCpps) { Compare("heldout"); }

}  // namespace
}  // namespace efedllm
