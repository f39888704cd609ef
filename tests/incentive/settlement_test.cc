#include "incentive/settlement.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

constexpr NodeId kNode{0xabc};

TEST(Settlement, ADayBeginsAtMidnightUtc) {
  const absl::Time midnight = absl::FromUnixSeconds(86'400 * 20'000);
  EXPECT_EQ(DayOf(midnight), 20'000);
  EXPECT_EQ(DayOf(midnight - absl::Microseconds(1)), 19'999);
}

TEST(Settlement, MovesWhatANodeHasToItsOwnerOnceADay) {
  const int64_t noon = (20'000 * 24 + 12) * int64_t{3'600'000'000};
  Entry entry = SettlementEntry(kNode, "ann", 7, noon);
  Normalize(entry);
  EXPECT_TRUE(CheckEntry(entry).ok());
  EXPECT_TRUE(CheckText(entry).ok());
  EXPECT_EQ(entry.postings,
            (std::vector<Posting>{{NodeAccount(kNode), -7}, {OwnerAccount("ann"), 7}}));
  EXPECT_EQ(SettlementEntry(kNode, "ann", 9, noon + 1).key, entry.key);
}

TEST(Settlement, AnOwnerEntrySaysWhoseTheNodeIs) {
  const auto binding = OwnerBindingOf(OwnerEntry(kNode, "Ann: and Bob", 5));
  ASSERT_TRUE(binding.has_value());
  EXPECT_EQ(binding->node, kNode);
  EXPECT_EQ(binding->owner, "Ann: and Bob");
  EXPECT_FALSE(OwnerBindingOf(SettlementEntry(kNode, "ann", 7, 5)).has_value());
}

}  // namespace
}  // namespace efedllm
