#include "text/ngram_lookup.h"

#include <algorithm>

#include "common/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<int32_t> Propose(const std::vector<int32_t>& tokens, size_t count) {
  NgramLookup lookup;
  lookup.Append(tokens);
  const NgramLookup::Match match = lookup.Find();
  return match.length == 0 ? std::vector<int32_t>() : lookup.Following(match, count);
}

TEST(NgramLookup, FindsWhatCameAfterTheSameTokens) {
  EXPECT_THAT(Propose({1, 2, 3, 4, 9, 1, 2, 3}, 3), ElementsAre(4, 9, 1));
  EXPECT_THAT(Propose({1, 2, 3, 4, 9, 2, 3}, 2), ElementsAre(4, 9));
}

TEST(NgramLookup, FindsNothingInNewText) {
  EXPECT_THAT(Propose({}, 3), IsEmpty());
  EXPECT_THAT(Propose(std::vector<int32_t>{1}, 3), IsEmpty());
  EXPECT_THAT(Propose({1, 1}, 3), IsEmpty());
  EXPECT_THAT(Propose({1, 2, 3, 4, 5, 6}, 3), IsEmpty());
  EXPECT_THAT(Propose({1, 2, 3, 4, 5, 3}, 3), IsEmpty()) << "one token is no match";
}

TEST(NgramLookup, PrefersTheLongerMatchAndThenTheLaterOne) {
  EXPECT_THAT(Propose({5, 1, 2, 7, 6, 1, 2, 8, 5, 1, 2}, 1), ElementsAre(7));
  EXPECT_THAT(Propose({1, 2, 7, 6, 1, 2, 8, 5, 1, 2}, 1), ElementsAre(8));
}

TEST(NgramLookup, GoesOnWithAPeriod) {
  EXPECT_THAT(Propose({4, 4, 4, 4, 4}, 4), ElementsAre(4, 4, 4, 4));
  EXPECT_THAT(Propose({1, 2, 3, 1, 2, 3, 1}, 7), ElementsAre(2, 3, 1, 2, 3, 1, 2));
}

TEST(NgramLookup, CountsHowMuchMatches) {
  NgramLookup lookup;
  for (int round = 0; round < 2; ++round) {
    for (int32_t token = 0; token < 10; ++token) lookup.Append(token);
  }
  EXPECT_EQ(lookup.Find().length, 10u);
  for (int32_t token = 0; token < 100; ++token) lookup.Append(token % 10);
  EXPECT_EQ(lookup.Find().length, NgramLookup::kMostMatch);
}

TEST(NgramLookup, EqualsASearchThroughTheWholeText) {
  Random random(7);
  NgramLookup lookup;
  std::vector<int32_t> tokens;
  for (int round = 0; round < 3000; ++round) {
    tokens.push_back(static_cast<int32_t>(random.Below(9)));
    lookup.Append(tokens.back());
    const auto matches = [&](size_t end, size_t n) {
      return end >= n && std::equal(tokens.end() - static_cast<ptrdiff_t>(n), tokens.end(),
                                    tokens.begin() + static_cast<ptrdiff_t>(end - n));
    };
    size_t found = 0;
    for (size_t n = 4; n >= 2 && found == 0; --n) {
      for (size_t end = tokens.size() - 1; end >= n && found == 0; --end) {
        if (tokens.size() > n && matches(end, n)) found = end;
      }
    }
    const NgramLookup::Match match = lookup.Find();
    ASSERT_EQ(match.next, found);
    if (match.length > 0) ASSERT_TRUE(matches(match.next, match.length));
  }
}

}  // namespace
}  // namespace efedllm
