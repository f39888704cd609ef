#include "common/ids.h"

#include <gtest/gtest.h>

#include <type_traits>

#include "absl/container/flat_hash_set.h"

namespace efedllm {
namespace {

static_assert(!std::is_convertible_v<NodeId, SequenceId>);
static_assert(!std::is_convertible_v<Epoch, uint64_t>);

TEST(Ids, NodeNamesRoundTrip) {
  for (const uint64_t v : {uint64_t{0}, uint64_t{1}, uint64_t{0x0123456789abcdef}, UINT64_MAX}) {
    const std::string name = NodeName(NodeId{v});
    EXPECT_EQ(name.size(), 16u);
    EXPECT_EQ(ParseNodeName(name), NodeId{v});
  }
  EXPECT_EQ(NodeName(NodeId{0xabc}), "0000000000000abc");
}

TEST(Ids, WhatIsNoNodeNameIsRefused) {
  for (const char* name : {"", "abc", "0000000000000ABC", "000000000000000g", "00000000000000000",
                           " 00000000000000a", "0x00000000000000"}) {
    EXPECT_EQ(ParseNodeName(name), std::nullopt) << name;
  }
}

TEST(Ids, AreOrderedAndHashed) {
  EXPECT_LT(StepId{1}, StepId{2});
  const absl::flat_hash_set<SequenceId> set = {SequenceId{1}, SequenceId{2}, SequenceId{1}};
  EXPECT_EQ(set.size(), 2u);
}

}  // namespace
}  // namespace efedllm
