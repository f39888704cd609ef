#include "worker/worker_world.h"

namespace efedllm {
namespace {

using WorkerLinksTest = WorkerWorld;

v1::CoordinatorMessage MeasureMessage(const MeasureLinks& measure) {
  v1::CoordinatorMessage message;
  *message.mutable_measure_links() = ToWire(measure);
  return message;
}

TEST_F(WorkerLinksTest, AnswersAPingWithItsClock) {
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  const absl::Time before = absl::Now();
  v1::CoordinatorMessage ping;
  ping.mutable_ping()->set_id(42);
  coordinator_.Send(ping);
  ASSERT_TRUE(coordinator_.AwaitMessage([&](const v1::WorkerMessage& message) {
    if (!message.has_pong()) return false;
    const absl::StatusOr<Pong> pong = FromWire(message.pong());
    return pong.ok() && pong->id == 42 && pong->worker_time > before - absl::Seconds(1) &&
           pong->worker_time < absl::Now() + absl::Seconds(1);
  }));
}

TEST_F(WorkerLinksTest, MeasuresTheLinksThatItIsAskedFor) {
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  const NodeId nobody{77};
  coordinator_.Send(MeasureMessage({{{nobody, "127.0.0.1:1"}, {kCoordinatorNode, ""}}}));
  std::optional<LinkReport> to_nobody, to_coordinator;
  ASSERT_TRUE(coordinator_.AwaitMessage([&](const v1::WorkerMessage& message) {
    if (!message.has_link_report()) return false;
    const absl::StatusOr<LinkReport> report = FromWire(message.link_report());
    EXPECT_TRUE(report.ok()) << report.status();
    (report->link.to == nobody ? to_nobody : to_coordinator) = *report;
    return to_nobody && to_coordinator;
  }));
  EXPECT_FALSE(to_nobody->link.reachable);
  EXPECT_FALSE(to_nobody->message.empty());
  EXPECT_TRUE(to_coordinator->link.reachable) << to_coordinator->message;
  EXPECT_EQ(to_coordinator->link.to, kCoordinatorNode);
  EXPECT_GT(to_coordinator->link.rtt, absl::ZeroDuration());
  EXPECT_GT(to_coordinator->link.bytes_per_second, 0);
}

TEST_F(WorkerLinksTest, StopIsPromptWhileALinkIsMeasured) {
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  // An address of a network that does not exist: packets to it vanish.
  coordinator_.Send(MeasureMessage({{{NodeId{77}, "192.0.2.1:7070"}}}));
  worker->Stop();
  EXPECT_TRUE(EndOf(*worker).ok());
}

TEST_F(WorkerLinksTest, TargetsThatCantBeDialedEndTheSession) {
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  v1::CoordinatorMessage message;
  message.mutable_measure_links()->add_targets()->set_node(7);
  coordinator_.Send(message);
  EXPECT_TRUE(coordinator_.AwaitAttached(2));
}

}  // namespace
}  // namespace efedllm
