#include "coordinator/node_drains.h"

#include <gmock/gmock.h>

namespace efedllm {
namespace {

using testing::HasSubstr;

constexpr NodeId kFox{0xAB00'0000'0000'0001}, kOldFox{0xAB00'0000'0000'0002};
constexpr NodeId kOwl{0xCD00'0000'0000'0003}, kOther{0xCD11'0000'0000'0004};

const std::vector<KnownNode> kNodes = {{kFox, "fox", true},
                                       {kOldFox, "fox", false},
                                       {kOwl, "owl", true},
                                       {kOther, "owls-nest", true},
                                       {NodeId{0x12}, "cd", false}};

NodeId Found(absl::string_view wanted) {
  const absl::StatusOr<KnownNode> node = FindNode(wanted, kNodes);
  EXPECT_TRUE(node.ok()) << wanted << ": " << node.status();
  return node.ok() ? node->node : NodeId();
}

TEST(FindNode, TakesAnIdANameOrTheBeginningOfOne) {
  EXPECT_EQ(Found("cd00000000000003"), kOwl);
  EXPECT_EQ(Found("CD00000000000003"), kOwl);
  EXPECT_EQ(Found("cd0"), kOwl);
  EXPECT_EQ(Found("owls"), kOther);
  EXPECT_EQ(Found("ab00000000000002"), kOldFox);
}

TEST(FindNode, TakesAWholeNameBeforeABeginning) {
  EXPECT_EQ(Found("owl"), kOwl);
  EXPECT_EQ(Found("cd"), NodeId{0x12});
}

TEST(FindNode, TakesTheOneThatIsThereOfSeveral) { EXPECT_EQ(Found("fox"), kFox); }

TEST(FindNode, NamesThoseThatItCouldBe) {
  const absl::Status status = FindNode("ow", kNodes).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("may be 2 nodes: owl (cd00000000000003), owls-nest (cd11000000000004)"));
}

TEST(FindNode, SaysWhereToLookWhenThereIsNone) {
  EXPECT_TRUE(absl::IsNotFound(FindNode("wolf", kNodes).status()));
  EXPECT_TRUE(absl::IsNotFound(FindNode("fox", {}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(FindNode("", kNodes).status()));
}

}  // namespace
}  // namespace efedllm
