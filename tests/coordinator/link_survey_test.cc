#include "coordinator/link_survey.h"

#include <gmock/gmock.h>

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);
constexpr NodeId kSelf{0};

std::vector<LinkSurvey::Node> Nodes(size_t count) {
  std::vector<LinkSurvey::Node> nodes;
  for (uint64_t i = 1; i <= count; ++i) {
    nodes.push_back({NodeId{i}, "host:" + std::to_string(i), kStart});
  }
  return nodes;
}

std::vector<uint64_t> Targets(const LinkSurvey::Ask& ask) {
  std::vector<uint64_t> targets;
  for (const LinkTarget& target : ask.measure.targets) targets.push_back(target.node.v);
  return targets;
}

// Answers everything at once until nothing is asked; how many links were measured.
size_t Settle(LinkSurvey& survey, const std::vector<LinkSurvey::Node>& nodes, absl::Time now,
              bool idle = true) {
  size_t links = 0;
  while (const auto ask = survey.Next(nodes, idle, now)) {
    for (const LinkTarget& target : ask->measure.targets) {
      EXPECT_NE(target.node, ask->from);
      EXPECT_TRUE(survey.Answered(ask->from, target.node));
      ++links;
    }
  }
  return links;
}

TEST(LinkSurvey, AsksOneNodeAfterTheOther) {
  LinkSurvey survey;
  const auto nodes = Nodes(2);
  auto ask = survey.Next(nodes, true, kStart);
  ASSERT_TRUE(ask);
  EXPECT_EQ(ask->from, kSelf);
  EXPECT_THAT(Targets(*ask), ElementsAre(1, 2));
  EXPECT_EQ(ask->measure.targets[0].address, "host:1");
  EXPECT_FALSE(survey.Next(nodes, true, kStart)) << "the first is not done";
  EXPECT_TRUE(survey.Answered(kSelf, NodeId{1}));
  EXPECT_FALSE(survey.Next(nodes, true, kStart));
  EXPECT_TRUE(survey.Answered(kSelf, NodeId{2}));
  ask = survey.Next(nodes, true, kStart);
  ASSERT_TRUE(ask);
  EXPECT_EQ(ask->from, NodeId{1});
  EXPECT_THAT(Targets(*ask), ElementsAre(0, 2));
  EXPECT_THAT(ask->measure.targets[0].address, IsEmpty());
}

TEST(LinkSurvey, MeasuresAllPairsOfASmallCluster) {
  LinkSurvey survey;
  EXPECT_EQ(Settle(survey, Nodes(16), kStart), 17u * 16);
  EXPECT_EQ(Settle(survey, Nodes(16), kStart), 0u);
}

TEST(LinkSurvey, MeasuresABoundedShareOfALargeCluster) {
  LinkSurvey survey;
  EXPECT_EQ(Settle(survey, Nodes(200), kStart), 200u * (1 + 1 + 15));
}

TEST(LinkSurvey, MeasuresWhatIsNewWhenANodeJoins) {
  LinkSurvey survey;
  Settle(survey, Nodes(3), kStart);
  EXPECT_EQ(Settle(survey, Nodes(4), kStart + absl::Seconds(1), false), 8u);
}

TEST(LinkSurvey, ANodeThatComesBackIsMeasuredAnew) {
  LinkSurvey survey;
  auto nodes = Nodes(3);
  Settle(survey, nodes, kStart);
  nodes[1].joined += absl::Seconds(5);
  EXPECT_EQ(Settle(survey, nodes, kStart + absl::Seconds(5)), 6u);
}

TEST(LinkSurvey, RepeatsRarelyAndOnlyWhenIdle) {
  LinkSurvey survey;
  const auto nodes = Nodes(2);
  Settle(survey, nodes, kStart);
  EXPECT_EQ(Settle(survey, nodes, kStart + absl::Minutes(9)), 0u);
  EXPECT_EQ(Settle(survey, nodes, kStart + absl::Minutes(11), false), 0u);
  EXPECT_EQ(Settle(survey, nodes, kStart + absl::Minutes(12)), 6u);
}

TEST(LinkSurvey, GoesOnWithoutANodeThatDoesNotAnswer) {
  LinkSurvey survey;
  const auto nodes = Nodes(2);
  ASSERT_TRUE(survey.Next(nodes, true, kStart));
  EXPECT_FALSE(survey.Next(nodes, true, kStart + absl::Seconds(39)));
  const auto ask = survey.Next(nodes, true, kStart + absl::Seconds(41));
  ASSERT_TRUE(ask);
  EXPECT_EQ(ask->from, NodeId{1});
}

TEST(LinkSurvey, TakesNoAnswerThatNobodyAskedFor) {
  LinkSurvey survey;
  EXPECT_FALSE(survey.Answered(NodeId{1}, NodeId{2}));
  ASSERT_TRUE(survey.Next(Nodes(2), true, kStart));
  EXPECT_FALSE(survey.Answered(NodeId{1}, NodeId{2}));
  EXPECT_FALSE(survey.Answered(kSelf, NodeId{3}));
  EXPECT_TRUE(survey.Answered(kSelf, NodeId{2}));
  EXPECT_FALSE(survey.Answered(kSelf, NodeId{2})) << "twice";
}

}  // namespace
}  // namespace efedllm
