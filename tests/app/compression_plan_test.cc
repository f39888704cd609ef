#include "app/compression_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/random.h"

namespace efedllm {
namespace {

using Kind = CompressionBudget::Kind;

TEST(CompressionBudget, IsAShareASizeOrAKl) {
  for (const char* text : {"0.8", " 0.80 ", "80%", "80 %"}) {
    const auto budget = ParseBudget(text);
    ASSERT_TRUE(budget.ok()) << text;
    EXPECT_EQ(budget->kind, Kind::kRatio);
    EXPECT_DOUBLE_EQ(budget->ratio, 0.8);
  }
  const struct {
    const char* text;
    uint64_t bytes;
  } sizes[] = {{"200MB", 200'000'000},
               {"1.5GiB", 3ull << 29},
               {"7 kb", 7000},
               {"64KiB", 65536},
               {"12345B", 12345}};
  for (const auto& size : sizes) {
    const auto budget = ParseBudget(size.text);
    ASSERT_TRUE(budget.ok()) << size.text;
    EXPECT_EQ(budget->kind, Kind::kBytes);
    EXPECT_EQ(budget->bytes, size.bytes);
  }
  const auto kl = ParseBudget("kl=0.05");
  ASSERT_TRUE(kl.ok());
  EXPECT_EQ(kl->kind, Kind::kMeanKl);
  EXPECT_DOUBLE_EQ(kl->mean_kl, 0.05);
}

TEST(CompressionBudget, RefusesWhatIsNone) {
  for (const char* text : {"", "0", "-0.5", "nan", "inf", "kl=", "kl=0", "kl=-1", "kl=nan", "MB",
                           "-3MB", "abc", "0.8x", "1e30GB", "%", "kl"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseBudget(text).status())) << text;
  }
  for (const char* text : {"1", "1.2", "100%", "200"}) {
    EXPECT_THAT(std::string(ParseBudget(text).status().message()),
                ::testing::HasSubstr("must be below 1"));
  }
}

using Matrices = std::vector<std::vector<PlanChoice>>;

TEST(CompressionPlan, BuysWhereABytePaysMost) {
  const Matrices matrices = {{{100, 0.0}, {50, 1.0}, {10, 3.0}},
                             {{100, 0.0}, {50, 0.1}, {10, 8.0}}};
  EXPECT_EQ(*PlanForBytes(matrices, 20), (CompressionChoices{2, 2}));
  EXPECT_EQ(*PlanForBytes(matrices, 60), (CompressionChoices{2, 1}));
  EXPECT_EQ(*PlanForBytes(matrices, 100), (CompressionChoices{1, 1}));
  EXPECT_EQ(*PlanForBytes(matrices, 150), (CompressionChoices{0, 1}));
  EXPECT_EQ(*PlanForBytes(matrices, 1000), (CompressionChoices{0, 0}));
  EXPECT_TRUE(absl::IsResourceExhausted(PlanForBytes(matrices, 19).status()));
}

TEST(CompressionPlan, NeverPaysForNothing) {
  // The larger choice is the worse one.
  const Matrices matrices = {{{100, 0.5}, {50, 0.2}, {60, 0.2}}};
  EXPECT_EQ(*PlanForBytes(matrices, 1000), (CompressionChoices{1}));
}

TEST(CompressionPlan, SpendsWhatIsLeftOffTheHull) {
  const Matrices matrices = {{{10, 4.0}, {20, 3.9}, {100, 0.0}}};
  EXPECT_EQ(*PlanForBytes(matrices, 30), (CompressionChoices{1}));
}

TEST(CompressionPlan, IsNearTheBestOfAll) {
  Random random(1);
  for (int round = 0; round < 200; ++round) {
    Matrices matrices(4);
    for (auto& matrix : matrices) {
      for (int k = 0; k < 5; ++k) matrix.push_back({random.Below(100) + 1, random.Uniform()});
    }
    const uint64_t budget = 150 + random.Below(150);
    const auto choices = PlanForBytes(matrices, budget);
    double best = 1e9, unpaid = 0;
    for (size_t all = 0; all < 625; ++all) {
      const CompressionChoices pick = {all % 5, all / 5 % 5, all / 25 % 5, all / 125};
      if (PlannedBytes(matrices, pick) <= budget) best = std::min(best, ExpectedKl(matrices, pick));
    }
    if (!choices.ok()) continue;
    EXPECT_LE(PlannedBytes(matrices, *choices), budget);
    // One matrix's step is what a greedy plan may miss.
    for (const auto& matrix : matrices) {
      for (const PlanChoice& choice : matrix) unpaid = std::max(unpaid, choice.kl);
    }
    EXPECT_LE(ExpectedKl(matrices, *choices), best + unpaid);
  }
}

TEST(CompressionPlan, ForAKlTakesNoMoreThanItNeeds) {
  const Matrices matrices = {{{100, 0.0}, {50, 1.0}, {10, 3.0}},
                             {{100, 0.0}, {50, 0.1}, {10, 8.0}}};
  EXPECT_EQ(PlanForKl(matrices, 20), (CompressionChoices{2, 2}));
  EXPECT_EQ(PlanForKl(matrices, 3.5), (CompressionChoices{2, 1}));
  EXPECT_EQ(PlanForKl(matrices, 0), (CompressionChoices{0, 0}));
}

}  // namespace
}  // namespace efedllm
