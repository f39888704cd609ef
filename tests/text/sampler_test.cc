#include "text/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "common/random.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

SamplingOptions Greedy() {
  SamplingOptions options;
  options.temperature = 0;
  return options;
}

// How often each token came in n draws; each draw is a sampler's first, so penalties don't matter.
std::map<int32_t, int> Histogram(SamplingOptions options, const std::vector<float>& logits, int n) {
  std::map<int32_t, int> counts;
  for (int i = 0; i < n; ++i) {
    options.seed = static_cast<uint64_t>(i);
    ++counts[Sampler(options, {}).Sample(logits)];
  }
  return counts;
}

std::set<int32_t> Drawn(const SamplingOptions& options, const std::vector<float>& logits,
                        int n = 2000) {
  std::set<int32_t> tokens;
  for (const auto& [token, count] : Histogram(options, logits, n)) tokens.insert(token);
  return tokens;
}

TEST(Sampler, GreedyTakesTheBestAndTheLowestIdOfEquals) {
  EXPECT_EQ(Sampler(Greedy(), {}).Sample({1, 3, 2, 3}), 1);
  EXPECT_EQ(Sampler(Greedy(), {}).Sample({kNan, -5, kNan}), 1);
  EXPECT_EQ(Sampler(Greedy(), {}).Sample({kNan, kNan}), 0);
  EXPECT_EQ(Sampler(Greedy(), {}).Sample({0, kInf, kNan}), 1);
}

TEST(Sampler, BiasesComeBeforeEverythingElse) {
  EXPECT_EQ(Sampler(Greedy(), {}, {{0, 2.5f}, {9, 100.f}, {-1, 100.f}}).Sample({1, 3, 2}), 0);
  SamplingOptions halved = Greedy();
  halved.repetition_penalty = 2;
  const std::vector<int32_t> prompt = {0};
  EXPECT_EQ(Sampler(halved, prompt, {{0, 4.f}}).Sample({1, 3, 2}), 1) << "5 / 2";
}

TEST(Sampler, ACopyPicksTheSame) {
  SamplingOptions options;
  options.seed = 3;
  options.frequency_penalty = 1;
  const std::vector<float> logits = {1, 1, 1, 1, 1, 1, 1, 1};
  Sampler sampler(options, {}, {{2, 1.f}});
  sampler.Sample(logits);
  Sampler copy = sampler;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(copy.Sample(logits), sampler.Sample(logits));
}

TEST(Sampler, DrawsWithTheProbabilitiesOfTheSoftmax) {
  const auto counts = Histogram({}, {std::log(1.f), std::log(2.f), std::log(5.f)}, 8000);
  EXPECT_NEAR(counts.at(0), 1000, 120);
  EXPECT_NEAR(counts.at(1), 2000, 160);
  EXPECT_NEAR(counts.at(2), 5000, 200);
}

TEST(Sampler, TemperatureSharpensAndFlattens) {
  SamplingOptions options;
  options.temperature = 0.5f;  // squares the odds: 1 to 9
  EXPECT_NEAR(Histogram(options, {std::log(1.f), std::log(3.f)}, 4000).at(0), 400, 90);
  options.temperature = 0.01f;
  EXPECT_EQ(Drawn(options, {1, 2}), std::set<int32_t>{1});
}

TEST(Sampler, TopKTopPAndMinPKeepTheLikeliest) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.4f), std::log(0.2f),
                                     std::log(0.3f)};
  SamplingOptions options;
  options.top_k = 2;
  EXPECT_EQ(Drawn(options, logits), (std::set<int32_t>{1, 3}));
  options = {};
  options.top_p = 0.75f;  // 0.4 + 0.3 is less, so 0.2 comes in too
  EXPECT_EQ(Drawn(options, logits), (std::set<int32_t>{1, 2, 3}));
  options.top_p = 0;
  EXPECT_EQ(Drawn(options, logits), (std::set<int32_t>{1}));
  options = {};
  options.min_p = 0.6f;  // of 0.4
  EXPECT_EQ(Drawn(options, logits), (std::set<int32_t>{1, 3}));
  // top_p counts on what top_k left: 0.4 of 0.7 is enough for 0.5.
  options = {};
  options.top_k = 2;
  options.top_p = 0.5f;
  EXPECT_EQ(Drawn(options, logits), (std::set<int32_t>{1}));
}

TEST(Sampler, TiesAtTheEdgeOfTopKKeepTheLowestIds) {
  SamplingOptions options;
  options.top_k = 3;
  EXPECT_EQ(Drawn(options, std::vector<float>(1000, 1.0f)), (std::set<int32_t>{0, 1, 2}));
}

TEST(Sampler, ALargeVocabularyIsCutAsASmallOneIs) {
  // Far more tokens within top_p than the first sorted stretch has.
  std::vector<float> logits(50'000, 0);
  SamplingOptions options;
  options.top_p = 0.1f;
  for (const int32_t token : Drawn(options, logits, 50)) EXPECT_LT(token, 5001);
  logits[40'000] = 20;
  EXPECT_EQ(Drawn(options, logits, 50), std::set<int32_t>{40'000});
}

TEST(Sampler, TheSameSeedGivesTheSameTokens) {
  SamplingOptions options;
  options.seed = 7;
  const auto run = [&] {
    Sampler sampler(options, {});
    Random random(1);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 50; ++i) {
      std::vector<float> logits(100);
      for (float& logit : logits) logit = static_cast<float>(random.Uniform() * 4);
      tokens.push_back(sampler.Sample(logits));
    }
    return tokens;
  };
  const auto tokens = run();
  EXPECT_EQ(run(), tokens);
  options.seed = 8;
  EXPECT_NE(run(), tokens);
  // On every CPU: these were drawn when the test was written.
  options.seed = 7;
  EXPECT_THAT(std::vector<int32_t>(tokens.begin(), tokens.begin() + 8),
              ElementsAre(41, 1, 93, 54, 42, 23, 52, 31));
}

TEST(Sampler, RepetitionPenaltyCountsPromptAndOutput) {
  SamplingOptions options = Greedy();
  options.repetition_penalty = 2;
  Sampler sampler(options, {0, -1, 99});
  EXPECT_EQ(sampler.Sample({3, 2, -1}), 1);     // 3 / 2 < 2
  EXPECT_EQ(sampler.Sample({-1, 1, -1.5}), 1);  // 1 / 2; -1 * 2
  EXPECT_EQ(sampler.Sample({-1, -1, -1.5}), 2);
}

TEST(Sampler, PresenceAndFrequencyPenaltiesCountTheOutputOnly) {
  SamplingOptions options = Greedy();
  options.presence_penalty = 1;
  Sampler presence(options, {0});
  EXPECT_EQ(presence.Sample({2, 1.5}), 0);
  EXPECT_EQ(presence.Sample({2, 1.5}), 1);
  EXPECT_EQ(presence.Sample({2, 1.5}), 0);  // both are present now
  options = Greedy();
  options.frequency_penalty = 0.4f;
  Sampler frequency(options, {0});
  std::vector<int32_t> tokens;
  for (int i = 0; i < 5; ++i) tokens.push_back(frequency.Sample({2, 1}));
  EXPECT_THAT(tokens, ElementsAre(0, 0, 0, 1, 0));
}

TEST(Sampler, AnyLogitsGiveAToken) {
  SamplingOptions options;
  options.top_p = 0.9f;
  options.min_p = 0.1f;
  options.presence_penalty = 2;
  options.repetition_penalty = 10;
  for (const float a : {kNan, kInf, -kInf, 3e38f, -3e38f, 0.0f}) {
    for (const float b : {kNan, kInf, -kInf, 3e38f, -3e38f, 0.0f}) {
      Sampler sampler(options, {0, 1});
      for (int i = 0; i < 4; ++i) {
        const int32_t token = sampler.Sample({a, b, a});
        EXPECT_TRUE(token >= 0 && token < 3);
      }
    }
  }
  EXPECT_EQ(Drawn({}, {kNan, 0, -kInf}), std::set<int32_t>{1});
}

TEST(SamplingOptions, RefusesWhatIsOutOfRangeAndNamesIt) {
  const auto refused = [](const char* name, auto set, std::initializer_list<float> values) {
    for (const float value : values) {
      SamplingOptions options;
      set(options, value);
      const absl::Status status = ValidateSamplingOptions(options);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name << " " << value;
      EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    }
  };
  using O = SamplingOptions;
  refused("temperature", [](O& o, float v) { o.temperature = v; }, {-1, 2.1f, kNan, kInf, -kInf});
  refused("top_p", [](O& o, float v) { o.top_p = v; }, {-0.1f, 1.1f, kNan});
  refused("min_p", [](O& o, float v) { o.min_p = v; }, {-0.1f, 1.1f, kNan});
  refused("presence_penalty", [](O& o, float v) { o.presence_penalty = v; }, {-2.1f, 2.1f, kNan});
  refused("frequency_penalty", [](O& o, float v) { o.frequency_penalty = v; }, {-3, 3, kNan});
  refused("repetition_penalty", [](O& o, float v) { o.repetition_penalty = v; }, {0, -1, 11, kNan});
  refused("top_k", [](O& o, float v) { o.top_k = static_cast<int32_t>(v); }, {-1, -100});
  EXPECT_TRUE(ValidateSamplingOptions({}).ok());
  EXPECT_TRUE(ValidateSamplingOptions(Greedy()).ok());
}

TEST(Logprobs, AreTheLogarithmsOfTheSoftmax) {
  const std::vector<float> logits = {std::log(1.f), std::log(2.f), std::log(5.f), std::log(2.f)};
  const Logprobs logprobs = ComputeLogprobs(logits, 0, 3);
  EXPECT_NEAR(logprobs.chosen, std::log(0.1), 1e-6);
  ASSERT_EQ(logprobs.top.size(), 3u);
  EXPECT_EQ(logprobs.top[0].token, 2);
  EXPECT_NEAR(logprobs.top[0].logprob, std::log(0.5), 1e-6);
  EXPECT_EQ(logprobs.top[1].token, 1);  // of equals the lower id
  EXPECT_EQ(logprobs.top[2].token, 3);
  EXPECT_EQ(ComputeLogprobs(logits, 0, 10).top.size(), 4u);
  EXPECT_TRUE(ComputeLogprobs(logits, 0, 0).top.empty());
}

TEST(Logprobs, TheLikeliestOfManyAreInOrder) {
  Random random(4);
  std::vector<float> logits(3000);
  for (float& logit : logits) logit = static_cast<float>(random.Below(40));  // with many ties
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  const Logprobs logprobs = ComputeLogprobs(logits, 0, 20);
  ASSERT_EQ(logprobs.top.size(), 20u);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(logprobs.top[i].token, order[i]);
}

TEST(Logprobs, AreFiniteForAnyLogits) {
  const Logprobs logprobs = ComputeLogprobs({kNan, 0, -kInf, kInf}, 0, 4);
  EXPECT_EQ(logprobs.chosen, -9999);
  EXPECT_EQ(logprobs.top[0].token, 3);
  EXPECT_EQ(logprobs.top[0].logprob, 0);
  EXPECT_EQ(logprobs.top[3].logprob, -9999);
  EXPECT_EQ(ComputeLogprobs({kNan}, 0, 1).chosen, 0);
  EXPECT_EQ(ComputeLogprobs({1, 2}, 5, 0).chosen, -9999);
}

}  // namespace
}  // namespace efedllm
