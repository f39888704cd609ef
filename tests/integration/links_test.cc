// What the nodes of a real cluster measure of each other.
#include <gtest/gtest.h>

#include <algorithm>

#include "integration/cluster_world.h"
#include "net/credentials.h"

namespace efedllm {
namespace {

const LinkSpeed* Find(const ClusterStatus& status, NodeId from, NodeId to) {
  const auto link = std::find_if(
      status.links.begin(), status.links.end(),
      [&](const LinkSpeed& candidate) { return candidate.from == from && candidate.to == to; });
  return link == status.links.end() ? nullptr : &*link;
}

TEST(Links, EveryNodeMeasuresEveryOther) {
  ClusterWorld world(kSeedlingPath, 2);
  world.Join();
  world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  ASSERT_TRUE(
      world.AwaitStatus([](const ClusterStatus& status) { return status.links.size() == 6; }));
  for (const LinkSpeed& link : world.coordinator().cluster_status().links) {
    EXPECT_TRUE(link.reachable) << NodeName(link.from) << " -> " << NodeName(link.to);
    EXPECT_GT(link.rtt, absl::ZeroDuration());
    EXPECT_LT(link.rtt, absl::Seconds(5));
    EXPECT_GT(link.bytes_per_second, 0);
  }
}

TEST(Links, ANodeThatNobodyCanDialIsSeenAsSuch) {
  ClusterWorld world(kSeedlingPath, 2);
  const NodeId open = world.Join().node();
  // Behind a firewall: the address is of a network that does not exist.
  const NodeId hidden =
      world.Join([](WorkerOptions& options) { options.advertise = "192.0.2.1:7071"; }).node();
  ASSERT_TRUE(world.AwaitStatus(
      [](const ClusterStatus& status) { return status.links.size() == 6; }, absl::Seconds(60)));
  const ClusterStatus status = world.coordinator().cluster_status();
  EXPECT_FALSE(Find(status, open, hidden)->reachable);
  EXPECT_FALSE(Find(status, kCoordinatorNode, hidden)->reachable);
  EXPECT_TRUE(Find(status, hidden, open)->reachable);
  EXPECT_TRUE(Find(status, hidden, kCoordinatorNode)->reachable);
  EXPECT_TRUE(Find(status, open, kCoordinatorNode)->reachable);
}

TEST(Links, PingsTellAWorkersClock) {
  ClusterWorld world(kSeedlingPath);
  world.Join();
  const auto is_pinged = [](const ClusterStatus& status) {
    return status.members.size() == 1 && !status.members[0].pings.empty();
  };
  ASSERT_TRUE(world.AwaitStatus(is_pinged));
  const PingFilter pings = world.coordinator().cluster_status().members[0].pings;
  EXPECT_GT(pings.rtt(), absl::ZeroDuration());
  // Both are one machine, so their clocks differ by no more than a ping can tell.
  EXPECT_LE(absl::AbsDuration(pings.offset()), pings.rtt());
}

TEST(Links, OfANodeThatJoinsLaterAreMeasuredToo) {
  ClusterWorld world(kSeedlingPath);
  world.Join();
  world.Join();
  ASSERT_TRUE(
      world.AwaitStatus([](const ClusterStatus& status) { return status.links.size() == 6; }));
  const NodeId third = world.Join().node();
  ASSERT_TRUE(world.AwaitStatus([&](const ClusterStatus& status) {
    return status.links.size() == 12 && Find(status, third, kCoordinatorNode) != nullptr;
  }));
}

}  // namespace
}  // namespace efedllm
