#include "coordinator/membership.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

class FakeLink final : public WorkerLink {
 public:
  void Assign(const Assignment&) override {}
  void Release(Epoch) override {}
  void Measure(const MeasureLinks&) override {}
  void HandOver(const efedllm::HandOver&) override {}
  void Prefetch(const efedllm::Prefetch&) override {}
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
  EXPECT_EQ(member.state(), MemberState::kStandby);
  membership_.Prepare(member, Epoch{7}, {0, 4}, now_);
  EXPECT_EQ(member.state(), MemberState::kAssigned);
  EXPECT_TRUE(membership_.TakeReport(member, Report(StageState::kFetching, 40), now_));
  EXPECT_EQ(member.state(), MemberState::kFetching);
  EXPECT_TRUE(membership_.TakeReport(member, Report(StageState::kReady, 100), now_));
  EXPECT_EQ(member.state(), MemberState::kReady);
  membership_.TakeReport(member, Report(StageState::kFetching, 100), now_);
  EXPECT_EQ(member.state(), MemberState::kReady);
  EXPECT_EQ(member.bytes_fetched, 100u);
}

TEST_F(MembershipTest, PreparesAStageBesideTheOneThatServes) {
  Member& member = Join(1);
  Member& other = Join(2);
  membership_.Prepare(member, Epoch{7}, {0, 4}, now_);
  membership_.Prepare(other, Epoch{7}, {4, 8}, now_);
  EXPECT_TRUE(membership_.TakeReport(member, Report(StageState::kReady, 100), now_));
  EXPECT_TRUE(membership_.Begin(Epoch{7}).empty());
  membership_.Prepare(member, Epoch{8}, {0, 8}, now_);
  EXPECT_EQ(member.present->layers, (LayerRange{0, 4}));
  EXPECT_EQ(member.next->layers, (LayerRange{0, 8}));
  EXPECT_EQ(member.state(), MemberState::kReady);
  const std::vector<Member*> out = membership_.Begin(Epoch{8});
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0], &other);
  EXPECT_EQ(member.present->layers, (LayerRange{0, 8}));
  EXPECT_FALSE(member.next.has_value());
}

TEST_F(MembershipTest, IgnoresReportsOfAnotherEpoch) {
  Member& member = Join(1);
  membership_.Prepare(member, Epoch{8}, {0, 4}, now_);
  EXPECT_FALSE(membership_.TakeReport(member, Report(StageState::kReady, 100), now_));
  EXPECT_EQ(member.state(), MemberState::kAssigned);
}

TEST_F(MembershipTest, SeesWhoIsSilentAndWhoMakesNoProgress) {
  Member& member = Join(1);
  membership_.Prepare(member, Epoch{7}, {0, 4}, now_);
  EXPECT_TRUE(membership_.Silent(rules_.lease, now_ + rules_.lease).empty());
  EXPECT_EQ(membership_.Silent(rules_.lease, now_ + 2 * rules_.lease).size(), 1u);
  membership_.TakeAnswer(member, now_ + rules_.lease);
  EXPECT_TRUE(membership_.Silent(rules_.lease, now_ + 2 * rules_.lease).empty());
  EXPECT_TRUE(membership_.Stalled(now_ + absl::Seconds(1)).empty());
  EXPECT_EQ(membership_.Stalled(now_ + rules_.stage_progress + absl::Seconds(1)).size(), 1u);
}

TEST_F(MembershipTest, ALongWayTakesLongerToAnswer) {
  Member& member = Join(1);
  member.pings.Add(now_, now_ + absl::Seconds(2), now_);
  EXPECT_TRUE(membership_.Silent(rules_.lease, now_ + absl::Seconds(4)).empty());
}

TEST_F(MembershipTest, OwnPausesAreNobodysSilence) {
  Join(1);
  membership_.Excuse(absl::Seconds(10));
  EXPECT_TRUE(membership_.Silent(rules_.lease, now_ + absl::Seconds(10)).empty());
}

TEST_F(MembershipTest, LeavesOutANodeForLongerEachTime) {
  Join(1);
  for (const absl::Duration time : rules_.left_out_for) {
    EXPECT_EQ(membership_.Candidates(now_).size(), 1u);
    membership_.LeaveOut(*membership_.Find(NodeId{1}), "no room", now_);
    Join(1);  // it comes back, and is the same machine
    EXPECT_TRUE(membership_.Candidates(now_).empty());
    now_ += time;
  }
  EXPECT_EQ(membership_.Candidates(now_).size(), 1u);
}

TEST_F(MembershipTest, ABrokenLinkIsNotPlannedForUntilItsNodesComeAgain) {
  Join(1);
  Join(2);
  membership_.TakeLink({NodeId{1}, NodeId{2}, absl::Milliseconds(1), 1e8, true});
  membership_.MarkUnreachable(NodeId{1}, NodeId{2}, now_);
  const auto nodes = membership_.PlannerNodes(membership_.Candidates(now_));
  ASSERT_EQ(membership_.PlannerLinks(nodes, now_).size(), 1u);
  EXPECT_FALSE(membership_.PlannerLinks(nodes, now_)[0].reachable);
  EXPECT_TRUE(membership_.PlannerLinks(nodes, now_ + absl::Hours(1))[0].reachable);
  Join(2);
  EXPECT_TRUE(membership_.PlannerLinks(nodes, now_)[0].reachable);
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
  membership_.Find(NodeId{3})->leaving = true;
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
  membership_.Prepare(member, Epoch{7}, {0, 4}, now_);
  membership_.Begin(Epoch{7});
  StageCounters counters;
  counters.epoch = Epoch{7};
  counters.steps = counters.tokens = 10;
  membership_.TakeHeartbeat(member, counters);
  counters.steps = counters.tokens = 15;
  membership_.TakeHeartbeat(member, counters);
  counters.tokens = 3;  // a peer that counts back adds nothing
  membership_.TakeHeartbeat(member, counters);
  EXPECT_EQ(member.tokens, 15u);
  EXPECT_DOUBLE_EQ(member.work_flop, 15 * 4 * 1000.0);
  membership_.Prepare(member, Epoch{8}, {0, 2}, now_);
  membership_.Begin(Epoch{8});
  counters.epoch = Epoch{8};
  counters.steps = counters.tokens = 5;
  membership_.TakeHeartbeat(member, counters);
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
