#include "coordinator/membership_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace efedllm {
namespace {

using testing::HasSubstr;

const absl::Time kStart = absl::FromUnixSeconds(1'000'000);

absl::Time At(double seconds) { return kStart + absl::Seconds(seconds); }
Candidate Worker(uint64_t node, double joined) { return {NodeId{node}, At(joined)}; }

MembershipRules Rules(size_t min_workers) {
  MembershipRules rules;
  rules.min_workers = min_workers;
  return rules;
}

MembershipView Serving(double now, std::vector<Candidate> candidates,
                       std::vector<NodeId> considered) {
  MembershipView view;
  view.now = At(now);
  view.candidates = std::move(candidates);
  view.considered = std::move(considered);
  view.plan = PlanState::kServing;
  view.served_before = true;
  return view;
}

TEST(MembershipRules, ComputesAloneAtOnceWhenNoWorkersAreAskedFor) {
  MembershipView view;
  view.now = At(0);
  EXPECT_TRUE(NextMove(view, Rules(0)).plan);
}

TEST(MembershipRules, WaitsForTheLeastNumberOfWorkersAndSaysSo) {
  MembershipView view;
  view.now = At(10);
  view.candidates = {Worker(1, 0), Worker(2, 0)};
  const MembershipMove move = NextMove(view, Rules(3));
  EXPECT_FALSE(move.plan);
  EXPECT_THAT(move.waiting_for, HasSubstr("2 of 3"));
  view.candidates.push_back(Worker(3, 0));
  EXPECT_TRUE(NextMove(view, Rules(3)).plan);
}

TEST(MembershipRules, MakesOnePlanForWorkersThatStartTogether) {
  MembershipView view;
  view.now = At(1.2);
  view.candidates = {Worker(1, 0), Worker(2, 1)};
  const MembershipMove move = NextMove(view, Rules(2));
  EXPECT_FALSE(move.plan);
  EXPECT_EQ(move.look_again, At(1) + Rules(2).join_settle);
  view.now = move.look_again;
  EXPECT_TRUE(NextMove(view, Rules(2)).plan);
}

TEST(MembershipRules, KeepsAPlanWhileNothingChanges) {
  const MembershipView view = Serving(1000, {Worker(1, 0)}, {NodeId{1}});
  const MembershipMove move = NextMove(view, Rules(1));
  EXPECT_FALSE(move.plan);
  EXPECT_EQ(move.look_again, absl::InfiniteFuture());
  EXPECT_TRUE(move.waiting_for.empty());
}

TEST(MembershipRules, TakesANewWorkerInAPauseOrAfterAWhile) {
  MembershipView view = Serving(101, {Worker(1, 0), Worker(2, 100)}, {NodeId{1}});
  EXPECT_TRUE(NextMove(view, Rules(1)).plan);
  view.active_sequences = 3;
  const MembershipMove move = NextMove(view, Rules(1));
  EXPECT_FALSE(move.plan);
  EXPECT_EQ(move.look_again, At(130));
  view.now = At(130);
  EXPECT_TRUE(NextMove(view, Rules(1)).plan);
}

TEST(MembershipRules, TakesABetterPlanInAPauseOrAfterAWhile) {
  MembershipView view = Serving(101, {Worker(1, 0)}, {NodeId{1}});
  view.better_since = At(100);
  EXPECT_TRUE(NextMove(view, Rules(1)).plan);
  view.active_sequences = 3;
  EXPECT_FALSE(NextMove(view, Rules(1)).plan);
  EXPECT_EQ(NextMove(view, Rules(1)).look_again, At(130));
  view.now = At(131);
  EXPECT_TRUE(NextMove(view, Rules(1)).plan);
}

TEST(MembershipRules, PlansAnewSoonAfterAWorkerIsLost) {
  MembershipView view = Serving(100, {Worker(1, 0)}, {NodeId{1}, NodeId{2}});
  view.plan = PlanState::kBroken;
  view.broken_since = At(100);
  view.active_sequences = 5;
  const MembershipMove move = NextMove(view, Rules(2));
  EXPECT_FALSE(move.plan);
  EXPECT_EQ(move.look_again, At(100) + Rules(2).break_settle);
  view.now = move.look_again;
  EXPECT_TRUE(NextMove(view, Rules(2)).plan) << "fewer than min_workers are enough from then on";
}

TEST(MembershipRules, WaitsWhenAllWorkersAreGone) {
  MembershipView view = Serving(200, {}, {NodeId{1}});
  view.plan = PlanState::kBroken;
  view.broken_since = At(100);
  EXPECT_THAT(NextMove(view, Rules(1)).waiting_for, HasSubstr("all workers are gone"));
  EXPECT_TRUE(NextMove(view, Rules(0)).plan) << "the coordinator computes alone";
}

TEST(MembershipRules, AsksThePlannerOnceInAWhileAboutTheSameWorkers) {
  MembershipView view = Serving(200, {Worker(1, 0)}, {NodeId{1}});
  view.plan = PlanState::kRefused;
  view.refused_at = At(199);
  EXPECT_FALSE(NextMove(view, Rules(1)).plan);
  EXPECT_EQ(NextMove(view, Rules(1)).look_again, At(199) + Rules(1).refused_interval);
  view.candidates.push_back(Worker(2, 150));
  EXPECT_TRUE(NextMove(view, Rules(1)).plan);
}

TEST(MembershipRules, RetriesAPlanThatFailsByItselfEverMoreSlowly) {
  const MembershipRules rules;
  EXPECT_EQ(PlanDelay(0, rules), absl::ZeroDuration());
  EXPECT_EQ(PlanDelay(1, rules), absl::ZeroDuration());
  EXPECT_EQ(PlanDelay(2, rules), absl::Milliseconds(500));
  EXPECT_EQ(PlanDelay(3, rules), absl::Seconds(1));
  EXPECT_EQ(PlanDelay(1000, rules), rules.max_plan_delay);
  MembershipView view = Serving(200, {Worker(1, 0)}, {NodeId{1}});
  view.plan = PlanState::kBroken;
  view.not_before = At(201);
  EXPECT_EQ(NextMove(view, rules).look_again, At(201));
}

TEST(MembershipRules, EstimatesAStepFromWhatTheNodesMeasured) {
  const std::vector<LayerCost> layers(4, LayerCost{1'000'000'000, 2'000'000'000, 0});
  Chain chain;
  chain.stages = {{NodeId{1}, {0, 3}}, {NodeId{2}, {3, 4}}};
  NodeProfile profile;
  profile.read_bytes_per_second = 1e10;
  profile.int8_ops_per_second = profile.f32_flops_per_second = 1e11;
  const std::vector<PlannerNode> nodes = {{NodeId{1}, "a", profile, {}},
                                          {NodeId{2}, "b", profile, {}}};
  EXPECT_NEAR(absl::ToDoubleSeconds(EstimateStep(chain, layers, nodes, 1)), 0.4, 1e-6);
  EXPECT_NEAR(absl::ToDoubleSeconds(EstimateStep(chain, layers, nodes, 100)), 8, 1e-6);
  // A node that claims to be infinitely slow can't make a deadline infinite.
  EXPECT_LT(EstimateStep(chain, layers, {}, 1'000'000'000), absl::Hours(2));
}

TEST(MembershipRules, FillsInTheHostThatTheCoordinatorSees) {
  EXPECT_EQ(CompleteHopAddress(":7071", "ipv4:10.0.0.7:55555").value(), "10.0.0.7:7071");
  EXPECT_EQ(CompleteHopAddress(":7071", "ipv6:[fd00::1]:55555").value(), "[fd00::1]:7071");
  EXPECT_EQ(CompleteHopAddress(":7071", "ipv6:%5Bfe80::1%25eth0%5D:5").value(),
            "[fe80::1%eth0]:7071");
  EXPECT_EQ(CompleteHopAddress("worker.lan:7071", "ipv4:10.0.0.7:5").value(), "worker.lan:7071");
  EXPECT_FALSE(CompleteHopAddress(":7071", "unix:/tmp/socket").ok());
  EXPECT_FALSE(CompleteHopAddress(":7071", "ipv4:").ok());
}

}  // namespace
}  // namespace efedllm
