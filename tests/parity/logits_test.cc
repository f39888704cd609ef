// The recorded answers of the parity pack, with the tolerances of its README.
#include <gtest/gtest.h>

#include <cmath>
#include <ostream>

#include "parity/parity_pack.h"

namespace efedllm {
namespace {

using nlohmann::json;

struct Model {
  const char* path;  // in models/, without its ending
  bool int8;         // the activations go into products as int8 blocks

  friend std::ostream& operator<<(std::ostream& out, const Model& model) {
    return out << model.path;
  }
};

class ParityTest : public ::testing::TestWithParam<Model> {
 protected:
  void SetUp() override {
    if (ParityDir().empty()) GTEST_SKIP() << "the parity pack is not here";
    const std::string base = ParityDir() + "/models/" + GetParam().path;
    answers_ = ReadJson(base + ".json");
    model_ = std::make_unique<LoadedModel>(base + ".gguf", 2, "auto");
  }

  bool IsGemma() const { return answers_["arch"].get<std::string>().rfind("gemma", 0) == 0; }

  // Gaps below this may flip the best token.
  double SafeGap(const json& noise) const {
    return GetParam().int8 ? 6 * noise["native_rms_vs_f64"].get<double>() : 0.05;
  }

  json answers_;
  std::unique_ptr<LoadedModel> model_;
};

struct Error {
  double max = 0;
  double rms = 0;
};

Error Compare(const std::vector<float>& logits, const std::vector<double>& expected) {
  EXPECT_EQ(logits.size(), expected.size());
  Error error;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(double{logits[i]} - expected[i]);
    error.max = std::max(error.max, difference);
    error.rms += difference * difference;
  }
  error.rms = std::sqrt(error.rms / static_cast<double>(expected.size()));
  return error;
}

TEST_P(ParityTest, LastLogitsAreThoseOfFloat64) {
  for (const json& c : answers_["cases"]) {
    const auto prompt = c["prompt"].get<std::vector<int32_t>>();
    const Error error =
        Compare(model_->Logits(prompt).back(), c["f64"]["last_logits"].get<std::vector<double>>());
    const json& noise = c["noise"];
    if (GetParam().int8) {
      EXPECT_LE(error.rms, 2 * noise["native_rms_vs_f64"].get<double>()) << c["id"];
      EXPECT_LE(error.max, 2.5 * noise["native_vs_f64"].get<double>()) << c["id"];
    } else {
      EXPECT_LE(error.max, IsGemma() ? 2e-3 : 1e-3) << c["id"];
    }
  }
}

// Of prompt + the recorded greedy tokens, which teacher-forces all that was recorded.
TEST_P(ParityTest, BestTokensAreTheRecordedOnesAtEveryPosition) {
  for (const json& c : answers_["cases"]) {
    const auto prompt = c["prompt"].get<std::vector<int32_t>>();
    const auto greedy = c["exact"]["greedy"].get<std::vector<int32_t>>();
    std::vector<int32_t> tokens = prompt;
    tokens.insert(tokens.end(), greedy.begin(), greedy.end() - 1);
    auto expected = c["exact"]["argmax"].get<std::vector<size_t>>();
    auto gaps = c["exact"]["gap"].get<std::vector<double>>();
    const auto greedy_gaps = c["exact"]["greedy_gap"].get<std::vector<double>>();
    expected.insert(expected.end(), greedy.begin() + 1, greedy.end());
    gaps.insert(gaps.end(), greedy_gaps.begin() + 1, greedy_gaps.end());
    const auto logits = model_->Logits(tokens);
    ASSERT_EQ(logits.size(), expected.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      if (gaps[i] <= SafeGap(c["noise"])) continue;
      EXPECT_EQ(ArgMax(logits[i]), expected[i]) << c["id"] << ", position " << i;
    }
  }
}

TEST_P(ParityTest, GreedyTextIsTheRecordedOne) {
  for (const json& c : answers_["cases"]) {
    const auto prompt = c["prompt"].get<std::vector<int32_t>>();
    auto expected = c["exact"]["greedy"].get<std::vector<int32_t>>();
    const auto gaps = c["exact"]["greedy_gap"].get<std::vector<double>>();
    size_t sure = 0;
    while (sure < gaps.size() && gaps[sure] > SafeGap(c["noise"])) ++sure;
    expected.resize(sure);
    EXPECT_EQ(model_->Greedy(prompt, sure), expected) << c["id"];
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, ParityTest,
    ::testing::Values(Model{"llama/llama-f16", false}, Model{"llama/llama-bf16", false},
                      Model{"llama/llama-q8_0", true}, Model{"llama/llama-q4_0", true},
                      Model{"llama/llama-q4_1", true}, Model{"llama/llama-q5_0", true},
                      Model{"llama/llama-q5_1", true}, Model{"llama/llama-q2_k", true},
                      Model{"llama/llama-q3_k_m", true}, Model{"llama/llama-q4_k_m", true},
                      Model{"llama/llama-q5_k_m", true}, Model{"llama/llama-q6_k", true},
                      Model{"llama/llama-iq4_nl", true}, Model{"llama/llama-iq4_xs", true},
                      Model{"llama/llama-mxfp4", true}, Model{"llama-rope3/llama-rope3-f16", false},
                      Model{"llama-linear/llama-linear-f16", false},
                      Model{"mistral-tied/mistral-tied-f16", false},
                      Model{"llama-yarn/llama-yarn-f16", false},
                      Model{"mixtral/mixtral-f16", false}, Model{"qwen2/qwen2-f16", false},
                      Model{"qwen3/qwen3-f16", false}, Model{"qwen3moe/qwen3moe-f16", false},
                      Model{"gemma2/gemma2-f16", false}, Model{"gemma3/gemma3-f16", false},
                      Model{"phi3/phi3-f16", false}));

class Stories260K : public ::testing::Test {
 protected:
  void SetUp() override {
    if (ParityDir().empty()) GTEST_SKIP() << "the parity pack is not here";
    answers_ = ReadJson(ParityDir() + "/stories260K/stories260K.json");
    model_ =
        std::make_unique<LoadedModel>(ParityDir() + "/stories260K/stories260K.gguf", 2, "auto");
  }

  // Compares ln p of each token given those before it.
  void ExpectLogProbabilities(const json& recorded) {
    const auto tokens = recorded["tokens"].get<std::vector<int32_t>>();
    const auto expected = recorded["logprob_f64"].get<std::vector<double>>();
    const auto logits = model_->Logits(tokens);
    double nll = 0;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      double sum = 0;
      for (const float logit : logits[i]) sum += std::exp(double{logit});
      const double logprob = double{logits[i][static_cast<size_t>(tokens[i + 1])]} - std::log(sum);
      EXPECT_NEAR(logprob, expected[i], 1e-4) << "position " << i;
      nll -= logprob;
    }
    EXPECT_NEAR(std::exp(nll / static_cast<double>(tokens.size() - 1)),
                recorded["perplexity"].get<double>(), 1e-4);
  }

  json answers_;
  std::unique_ptr<LoadedModel> model_;
};

TEST_F(Stories260K, TellsTheRecordedStory) {
  const json& greedy = answers_["greedy"];
  const auto prompt = greedy["prompt"].get<std::vector<int32_t>>();
  const auto expected = greedy["tokens"].get<std::vector<int32_t>>();
  ASSERT_EQ(expected.size(), 200u);
  EXPECT_EQ(model_->Greedy(prompt, 200), expected);
}

TEST_F(Stories260K, GivesTheRecordedProbabilitiesToItsOwnText) {
  ExpectLogProbabilities(answers_["forced"]);
}

TEST_F(Stories260K, GivesTheRecordedProbabilitiesToAnotherText) {
  ExpectLogProbabilities(answers_["heldout"]);
}

}  // namespace
}  // namespace efedllm
