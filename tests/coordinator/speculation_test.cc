#include "coordinator/speculation.h"

#include "common/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

// A trip that takes `fixed` seconds, and so much for each row.
auto Affine(double fixed, double per_row) {
  return [=](uint32_t rows) { return fixed + per_row * rows; };
}

DraftChoice Choose(DraftRules& rules, absl::FunctionRef<double(uint32_t)> seconds,
                   DraftKind kind = DraftKind::kMatch4, uint32_t room = 100) {
  const DraftOffer offer{kind, 100, 0};
  return rules.Choose({offer}, {.seconds = seconds, .room = room});
}

void Learn(DraftRules& rules, DraftKind kind, uint32_t proposed, uint32_t accepted) {
  for (int i = 0; i < 200; ++i) rules.Observe(kind, proposed, accepted);
}

TEST(DraftRules, DraftsManyWhereATripIsLongAndRowsAreCheap) {
  DraftRules rules;
  Learn(rules, DraftKind::kMatch4, 16, 16);
  EXPECT_EQ(Choose(rules, Affine(0.1, 0.001)).tokens, kMostDrafts);
  Learn(rules, DraftKind::kMatch4, 4, 2);
  const uint32_t fewer = Choose(rules, Affine(0.1, 0.01)).tokens;
  EXPECT_GT(fewer, 0u);
  EXPECT_LT(fewer, kMostDrafts);
}

TEST(DraftRules, DraftsNothingWhereEachRowCostsAsMuchAsAToken) {
  DraftRules rules;
  Learn(rules, DraftKind::kMatch4, 4, 1);
  EXPECT_EQ(Choose(rules, Affine(0, 0.01)).tokens, 0u);
}

TEST(DraftRules, DraftsNothingBeforeTimesAreKnown) {
  DraftRules rules;
  EXPECT_EQ(Choose(rules, Affine(0, 0)).tokens, 0u);
}

TEST(DraftRules, KeepsToTheRoomInTheStepAndTheOffer) {
  DraftRules rules;
  Learn(rules, DraftKind::kMatch4, 16, 16);
  EXPECT_EQ(Choose(rules, Affine(0.1, 0.001), DraftKind::kMatch4, 5).tokens, 5u);
  EXPECT_EQ(Choose(rules, Affine(0.1, 0.001), DraftKind::kMatch4, 0).tokens, 0u);
  const DraftOffer offer{DraftKind::kMatch4, 3, 0};
  EXPECT_EQ(rules.Choose({offer}, {.seconds = Affine(0.1, 0.001), .room = 9}).tokens, 3u);
}

TEST(DraftRules, TakesTheOfferThatGivesMore) {
  DraftRules rules;
  Learn(rules, DraftKind::kMatch2, 4, 0);
  Learn(rules, DraftKind::kModel, 4, 4);
  const std::vector<DraftOffer> offers = {{DraftKind::kMatch2, 16, 0}, {DraftKind::kModel, 16, 0}};
  const auto seconds = Affine(0.1, 0.001);
  EXPECT_EQ(rules.Choose(offers, {.seconds = seconds, .room = 99}).kind, DraftKind::kModel);
  const std::vector<DraftOffer> dear = {{DraftKind::kMatch2, 16, 0}, {DraftKind::kModel, 16, 1}};
  EXPECT_EQ(rules.Choose(dear, {.seconds = seconds, .room = 99}).tokens, 0u)
      << "the model's time counts";
}

TEST(DraftRules, CountsTheOthersInTheStep) {
  DraftRules rules;
  Learn(rules, DraftKind::kMatch4, 2, 1);
  const auto seconds = Affine(0.1, 0.01);
  EXPECT_GT(Choose(rules, seconds).tokens, 0u);
  const DraftOffer offer{DraftKind::kMatch4, 16, 0};
  EXPECT_EQ(
      rules.Choose({offer}, {.seconds = seconds, .rows = 60, .tokens = 60, .room = 99}).tokens, 0u);
}

TEST(DraftRules, TriesAgainEverMoreRarely) {
  DraftRules rules;
  const auto seconds = Affine(0.01, 0.01);
  std::vector<int> tries;
  for (int i = 0; i < 4000; ++i) {
    const DraftChoice choice = Choose(rules, seconds);
    if (choice.tokens == 0) continue;
    tries.push_back(i);
    rules.Observe(choice.kind, choice.tokens, 0);
  }
  EXPECT_GT(tries.size(), 4u);
  EXPECT_LT(tries.size(), 40u);
  EXPECT_GT(tries.back() - tries[tries.size() - 2], 500);
}

TEST(DraftRules, ComesBackWhenDraftsAreRightAgain) {
  DraftRules rules;
  const auto seconds = Affine(0.05, 0.01);
  Learn(rules, DraftKind::kMatch4, 4, 0);
  int drafted = 0;
  for (int i = 0; i < 2000; ++i) {
    const DraftChoice choice = Choose(rules, seconds);
    rules.Observe(choice.kind, choice.tokens, choice.tokens);
    drafted += choice.tokens > 0;
  }
  EXPECT_GT(drafted, 500);
}

TEST(DraftRules, AHintIsSoonForgotten) {
  DraftRules rules;
  Learn(rules, DraftKind::kMatch4, 1, 1);
  rules.TakeAsHint();
  EXPECT_GT(rules.chance(DraftKind::kMatch4), 0.95);
  for (int i = 0; i < 6; ++i) rules.Observe(DraftKind::kMatch4, 1, 0);
  EXPECT_LT(rules.chance(DraftKind::kMatch4), 0.6);
}

TEST(DraftRules, LearnsTheChanceOfTheNextOne) {
  DraftRules rules;
  Random random(5);
  for (int i = 0; i < 3000; ++i) {
    uint32_t accepted = 0;
    while (accepted < 8 && random.Uniform() < 0.7) ++accepted;
    rules.Observe(DraftKind::kMatch3, 8, accepted);
  }
  EXPECT_NEAR(rules.chance(DraftKind::kMatch3), 0.7, 0.25);
  EXPECT_EQ(rules.chance(DraftKind::kMatch2), DraftRules().chance(DraftKind::kMatch2));
}

TEST(DraftRules, ALongerMatchIsTrustedMore) {
  EXPECT_EQ(KindOfMatch(2), DraftKind::kMatch2);
  EXPECT_EQ(KindOfMatch(3), DraftKind::kMatch3);
  EXPECT_EQ(KindOfMatch(7), DraftKind::kMatch4);
  EXPECT_EQ(KindOfMatch(16), DraftKind::kMatch8);
  const DraftRules rules;
  EXPECT_LT(rules.chance(DraftKind::kMatch2), rules.chance(DraftKind::kMatch8));
}

}  // namespace
}  // namespace efedllm
