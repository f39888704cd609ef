// A coordinator with its ledger, book and audits, and real workers, honest and not.
#include <gtest/gtest.h>

#include <string>

#include "absl/time/clock.h"
#include "adversary/cheats.h"
#include "incentive/ledger_verify.h"
#include "integration/cluster_world.h"

namespace efedllm {
namespace {

struct PaidCluster {
  explicit PaidCluster(const std::string& cheat)
      : world(kSeedlingPath, 3, [](auto& o) { o.layout = Layout::kChain; }) {
    for (int i = 0; i < 3; ++i) {
      world.Join([&](WorkerOptions& options) {
        options.owner = "owner-" + std::to_string(i);
        if (i == 1 && !cheat.empty()) options.tamper = *MakeCheat(cheat);
      });
    }
  }
  Incentives& incentives() { return *world.coordinator().incentives(); }
  bool Ask(uint32_t tokens) {
    const auto prompt = SeedlingTokens("Once upon a time there was a fox named Milo.");
    return world.Generate(prompt, tokens).status.ok();
  }
  size_t Count(EntryKind kind) {
    return incentives().ledger().reader().Latest({1000, kind, ""})->size();
  }
  template <typename Condition>
  static bool Await(Condition condition) {
    const absl::Time until = absl::Now() + absl::Seconds(60);
    while (!condition() && absl::Now() < until) absl::SleepFor(absl::Milliseconds(20));
    return condition();
  }

  ClusterWorld world;
};

TEST(Incentives, HonestWorkIsAuditedAndPending) {
  PaidCluster cluster("");
  ASSERT_TRUE(cluster.world.AwaitServing(3));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(cluster.Ask(100));
  ASSERT_TRUE(
      PaidCluster::Await([&] { return cluster.incentives().audits().counters().honest >= 6; }));
  ASSERT_TRUE(PaidCluster::Await([&] { return cluster.Count(EntryKind::kPending) >= 3; }));
  const AuditCounters audits = cluster.incentives().audits().counters();
  EXPECT_EQ(audits.lied + audits.withheld + audits.undecidable + audits.dropped, 0u);
  EXPECT_EQ(cluster.Count(EntryKind::kOwner), 3u);
  EXPECT_EQ(cluster.Count(EntryKind::kVoid), 0u);
  const auto standings = cluster.incentives().book().Standings();
  ASSERT_EQ(standings.size(), 3u);
  for (const NodeStanding& standing : standings) {
    EXPECT_TRUE(MayWork(standing.trust));
    EXPECT_GT(standing.pending_pay, 0);
  }
}

TEST(Incentives, ACheatIsEvictedVoidedAndTheOthersGoOn) {
  PaidCluster cluster("noise-bit");
  ASSERT_TRUE(cluster.world.AwaitServing(3));
  ASSERT_TRUE(cluster.Ask(70));
  ASSERT_TRUE(PaidCluster::Await([&] {
    for (const Member& member : cluster.world.coordinator().cluster_status().members) {
      if (!member.barred.empty()) return true;
    }
    return false;
  }));
  ASSERT_TRUE(cluster.world.AwaitServing(2));
  ASSERT_TRUE(cluster.Ask(70));
  ASSERT_TRUE(PaidCluster::Await([&] { return cluster.Count(EntryKind::kVoid) >= 1; }));
  EXPECT_GE(cluster.Count(EntryKind::kEvidence), 2u);  // with the lottery's commitment
  size_t evicted = 0;
  for (const NodeStanding& standing : cluster.incentives().book().Standings()) {
    const Micros has = *cluster.incentives().ledger().reader().Balance(NodeAccount(standing.node));
    if (standing.trust.state != TrustState::kEvicted) {
      EXPECT_GE(has, 0);
      continue;
    }
    ++evicted;
    EXPECT_LT(has, 0);
  }
  EXPECT_EQ(evicted, 1u);
}

}  // namespace
}  // namespace efedllm
