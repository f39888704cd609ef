#include "coordinator/membership.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

class FakeLink final : public WorkerLink {
 public:
  void Assign(const Assignment&) override {}
  void Release(Epoch) override {}
  void Measure(const MeasureLinks&) override {}
  void Close(const absl::Status&) override {}
};

class MembershipTest : public testing::Test {
 protected:
  Member& Join(uint64_t node) {
    link_ = std::make_shared<FakeLink>();
    Hello hello;
    hello.name = "worker";
    replaced_ = membership_.Attach(NodeId{node}, hello, link_, now_);
    return *membership_.Find(NodeId{node});
  }
  StageReport Report(StageState state, uint64_t held) {
    StageReport report;
    report.epoch = Epoch{7};
    report.state = state;
    report.bytes_held = report.bytes_fetched = held;
    report.bytes_total = 100;
    return report;
  }

  MembershipRules rules_;
  Membership membership_{rules_, 1000};
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  std::shared_ptr<WorkerLink> link_, replaced_;
};

TEST_F(MembershipTest, ANodeIsItsKeyAndItsLastStream) {
  Join(1);
  const std::shared_ptr<WorkerLink> first = link_;
  EXPECT_EQ(replaced_, nullptr);
  Join(1);
  EXPECT_EQ(replaced_, first);
  EXPECT_EQ(membership_.All().size(), 1u);
  EXPECT_EQ(membership_.Find(NodeId{1}, first.get()), nullptr);
  EXPECT_NE(membership_.Find(NodeId{1}, link_.get()), nullptr);
}

TEST_F(MembershipTest, WalksThroughAStageOneWay) {
  Member& member = Join(1);
  EXPECT_EQ(member.state, MemberState::kStandby);
  membership_.SetStage(member, {0, 4}, now_);
  EXPECT_EQ(member.state, MemberState::kAssigned);
  EXPECT_TRUE(membership_.TakeReport(member, Report(StageState::kFetching, 40), Epoch{7}, now_));
  EXPECT_EQ(member.state, MemberState::kFetching);
  EXPECT_TRUE(membership_.TakeReport(member, Report(StageState::kReady, 100), Epoch{7}, now_));
  EXPECT_EQ(member.state, MemberState::kReady);
  membership_.TakeReport(member, Report(StageState::kFetching, 100), Epoch{7}, now_);
  EXPECT_EQ(member.state, MemberState::kReady);
  EXPECT_EQ(member.bytes_fetched, 100u);
}

TEST_F(MembershipTest, IgnoresReportsOfAnotherEpoch) {
  Member& member = Join(1);
  membership_.SetStage(member, {0, 4}, now_);
  EXPECT_FALSE(membership_.TakeReport(member, Report(StageState::kReady, 100), Epoch{8}, now_));
  EXPECT_EQ(member.state, MemberState::kAssigned);
}

TEST_F(MembershipTest, SeesWhoIsSilentAndWhoMakesNoProgress) {
  Member& member = Join(1);
  membership_.SetStage(member, {0, 4}, now_);
  EXPECT_TRUE(membership_.Silent(now_ + rules_.heartbeat * 3).empty());
  EXPECT_EQ(membership_.Silent(now_ + rules_.heartbeat * 5).size(), 1u);
  EXPECT_TRUE(membership_.Stalled(now_ + absl::Seconds(1)).empty());
  EXPECT_EQ(membership_.Stalled(now_ + rules_.stage_progress + absl::Seconds(1)).size(), 1u);
}

TEST_F(MembershipTest, LeavesOutANodeWhoseStageFailedAFewTimes) {
  Join(1);
  for (int i = 0; i < rules_.max_stage_failures; ++i) {
    EXPECT_EQ(membership_.Candidates(now_).size(), 1u);
    membership_.CountFailure(*membership_.Find(NodeId{1}), "no room", now_);
    Join(1);  // it comes back, and is the same machine
  }
  EXPECT_TRUE(membership_.Candidates(now_).empty());
  EXPECT_EQ(membership_.Candidates(now_ + rules_.left_out_for).size(), 1u);
}

TEST_F(MembershipTest, PlansInTheSameOrderHoweverTheyJoined) {
  Join(9);
  now_ += absl::Seconds(1);
  Join(3);
  now_ += absl::Seconds(1);
  Join(5);
  std::vector<uint64_t> order;
  for (const PlannerNode& node : membership_.PlannerNodes(membership_.Candidates(now_))) {
    order.push_back(node.node.v);
  }
  EXPECT_EQ(order, (std::vector<uint64_t>{3, 5, 9}));
  membership_.Find(NodeId{3})->state = MemberState::kDraining;
  membership_.MarkGone(*membership_.Find(NodeId{9}));
  EXPECT_EQ(membership_.Candidates(now_).size(), 1u);
}

TEST_F(MembershipTest, PutsWorkersThatOnlyThisMachineCanDialFirst) {
  const auto join = [&](uint64_t node, const std::string& address) {
    Join(node).hello.hop_address = address;
    now_ += absl::Seconds(1);
  };
  join(1, "10.0.0.1:7071");
  join(2, "127.0.0.1:7071");
  join(3, "10.0.0.3:7071");
  join(4, "[::1]:7072");
  std::vector<uint64_t> order;
  for (const Candidate& candidate : membership_.Candidates(now_)) order.push_back(candidate.node.v);
  EXPECT_EQ(order, (std::vector<uint64_t>{2, 4, 1, 3}));
}

TEST_F(MembershipTest, CountsWorkOverEpochsFromCountersThatBeginAnew) {
  Member& member = Join(1);
  membership_.SetStage(member, {0, 4}, now_);
  StageCounters counters;
  counters.epoch = Epoch{7};
  counters.steps = counters.tokens = 10;
  membership_.TakeHeartbeat(member, counters, now_);
  counters.steps = counters.tokens = 15;
  membership_.TakeHeartbeat(member, counters, now_);
  counters.tokens = 3;  // a peer that counts back adds nothing
  membership_.TakeHeartbeat(member, counters, now_);
  EXPECT_EQ(member.tokens, 15u);
  EXPECT_DOUBLE_EQ(member.work_flop, 15 * 4 * 1000.0);
  membership_.SetStage(member, {0, 2}, now_);
  counters.epoch = Epoch{8};
  counters.steps = counters.tokens = 5;
  membership_.TakeHeartbeat(member, counters, now_);
  EXPECT_EQ(member.tokens, 20u);
}

TEST_F(MembershipTest, ForgetsWhoIsGoneForLong) {
  Join(1);
  membership_.MarkGone(*membership_.Find(NodeId{1}));
  membership_.Forget(now_ + absl::Minutes(1));
  EXPECT_EQ(membership_.All().size(), 1u);
  membership_.Forget(now_ + absl::Hours(1));
  EXPECT_TRUE(membership_.All().empty());
}

}  // namespace
}  // namespace efedllm
