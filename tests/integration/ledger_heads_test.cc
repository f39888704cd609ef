// Workers keep heads of the coordinator's ledger, and notice when it is another one.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/ledger_head_json.h"
#include "common/file.h"
#include "incentive/ledger.h"
#include "incentive/ledger_verify.h"
#include "integration/cluster_world.h"

namespace efedllm {
namespace {

class LedgerHeads : public testing::Test {
 protected:
  // As workers keep them, or pairs that prove a fork (ending ".forks.jsonl"); empty: none yet.
  std::vector<SignedLedgerHead> Kept(const std::string& worker,
                                     const std::string& ending = ".jsonl") {
    const std::string path =
        absl::StrCat(world_.dir(), "/", worker, "/ledger-heads/",
                     PublicKeyHex(world_.coordinator().receipts().public_key()), ending);
    const absl::StatusOr<std::string> text = ReadFile(path, size_t{1} << 20);
    if (!text.ok()) return {};
    const auto heads = ParseHeads(text->substr(0, text->rfind('\n') + 1));
    EXPECT_TRUE(heads.ok()) << heads.status();
    return heads.value_or(std::vector<SignedLedgerHead>());
  }
  static bool Await(const std::function<bool()>& condition) {
    const absl::Time until = absl::Now() + absl::Seconds(40);
    while (!condition() && absl::Now() < until) absl::SleepFor(absl::Milliseconds(20));
    return condition();
  }
  bool AwaitKept(const std::string& worker, uint64_t entries) {
    return Await([&] {
      const auto heads = Kept(worker);
      return !heads.empty() && heads.back().head.size >= entries;
    });
  }
  uint64_t Entries() {
    return world_.coordinator().incentives()->ledger().reader().Size().value_or(0);
  }
  std::string LedgerFile() const { return LedgerPath(world_.dir() + "/coordinator"); }

  ClusterWorld world_{kSeedlingPath, 0, [](CoordinatorOptions& options) {
                        options.layout = Layout::kChain;
                        options.ledger_head_interval = absl::Milliseconds(100);
                      }};
  const std::vector<int32_t> prompt_ = SeedlingTokens("Once upon a time there was a fox.");
};

TEST_F(LedgerHeads, FollowTheLedgerOverRestartsOfBothSides) {
  world_.Join();
  world_.Join();
  ASSERT_TRUE(world_.AwaitServing(2));
  ASSERT_TRUE(world_.Generate(prompt_, 150).status.ok());
  ASSERT_TRUE(Await([&] { return Entries() > 5; }));
  ASSERT_TRUE(AwaitKept("worker-0", 6) && AwaitKept("worker-1", 6));
  world_.Leave(0);
  world_.Join([&](WorkerOptions& options) {
    options.name = "worker-0";
    options.state_dir = world_.dir() + "/worker-0";
  });
  ASSERT_TRUE(world_.AwaitServing(2));
  world_.RestartCoordinator();
  ASSERT_TRUE(world_.AwaitServing(2));
  const uint64_t before = Entries();
  ASSERT_TRUE(world_.Generate(prompt_, 150).status.ok());
  ASSERT_TRUE(AwaitKept("worker-0", before + 1) && AwaitKept("worker-1", before + 1));
  VerifyOptions options;
  options.signer = world_.coordinator().receipts().public_key();
  for (const char* worker : {"worker-0", "worker-1"}) {
    for (const SignedLedgerHead& head : Kept(worker)) options.heads.push_back(head);
    EXPECT_TRUE(Kept(worker, ".forks.jsonl").empty());
  }
  world_.StopCoordinator();
  const auto verified = VerifyLedger(LedgerFile(), options);
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_FALSE(verified->fault.has_value()) << verified->fault->what;
  EXPECT_EQ(verified->kept_heads, options.heads.size());
}

TEST_F(LedgerHeads, ALedgerThatWasWrittenAnewIsNoticedAndProven) {
  world_.Join();
  ASSERT_TRUE(world_.AwaitServing(1));
  const std::string copy = world_.dir() + "/copy.db";
  ASSERT_TRUE(world_.coordinator().incentives()->ledger().reader().Backup(copy).ok());
  ASSERT_TRUE(world_.Generate(prompt_, 150).status.ok());
  ASSERT_TRUE(Await([&] { return Entries() > 5; }));
  ASSERT_TRUE(AwaitKept("worker-0", Entries()));
  const SignedLedgerHead kept = Kept("worker-0").back();
  world_.RestartCoordinator([&] {
    {
      const auto fork = Ledger::Open(copy, absl::Now());
      ASSERT_TRUE(fork.ok()) << fork.status();
      std::vector<Entry> others(kept.head.size + 10);
      for (size_t i = 0; i < others.size(); ++i) {
        others[i] = {.key = absl::StrCat("other:", i), .kind = EntryKind::kEvidence};
        others[i].about = "something else";
        others[i].memo = "{}";
      }
      ASSERT_TRUE((*fork)->Append(others).ok());
    }
    for (const char* ending : {"-wal", "-shm"}) std::filesystem::remove(LedgerFile() + ending);
    std::filesystem::rename(copy, LedgerFile());
  });
  ASSERT_TRUE(Await([&] { return !Kept("worker-0", ".forks.jsonl").empty(); }));
  // It still keeps what it kept, and both heads carry the same key's signature.
  EXPECT_GE(Kept("worker-0").back().head.size, kept.head.size);
  const std::vector<SignedLedgerHead> proof = Kept("worker-0", ".forks.jsonl");
  ASSERT_EQ(proof.size(), 2u);
  EXPECT_EQ(proof[0], Kept("worker-0").back());
  EXPECT_TRUE(IsSigned(proof[0]) && IsSigned(proof[1]));
  EXPECT_EQ(proof[0].key, proof[1].key);
  // Whichever ledger the coordinator shows now, it breaks one of them.
  world_.StopCoordinator();
  const auto verified = VerifyLedger(LedgerFile(), {.heads = proof});
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_TRUE(verified->fault.has_value());
}

}  // namespace
}  // namespace efedllm
