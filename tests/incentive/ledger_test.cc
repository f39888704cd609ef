#include "incentive/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <thread>

#include "incentive/ledger_tables.h"
#include "incentive/ledger_world.h"

namespace efedllm {
namespace {

using testing::HasSubstr;

class LedgerTest : public LedgerWorld {};

TEST_F(LedgerTest, PaysForWorkThatIsProven) {
  ASSERT_TRUE(AppendWork(Work("r1", kAda, 500)).ok());
  EXPECT_EQ(Balance(EscrowAccount(kAda)), 500);
  EXPECT_EQ(Balance(kIssuerAccount), -500);
  ASSERT_TRUE(Post("r1").ok());
  EXPECT_EQ(Balance(EscrowAccount(kAda)), 0);
  EXPECT_EQ(Balance(NodeAccount(kAda)), 500);
  EXPECT_TRUE(ledger_->reader().Pending()->empty());
  EXPECT_EQ(Fault(), "");
}

TEST_F(LedgerTest, TakesAPenaltyForWorkThatIsDisproven) {
  ASSERT_TRUE(AppendWork(Work("r1", kAda, 500)).ok());
  ASSERT_TRUE(Void("r1", 2000).ok());
  EXPECT_EQ(Balance(EscrowAccount(kAda)), 0);
  EXPECT_EQ(Balance(NodeAccount(kAda)), -2000);
  EXPECT_EQ(Balance(kPenaltyAccount), 2000);
  EXPECT_EQ(Balance(kIssuerAccount), 0);
  EXPECT_EQ(Fault(), "");
}

TEST_F(LedgerTest, RetriedEntryIsWrittenOnce) {
  const Entry entry = PendingEntry(Work("r1", kAda, 500, 7), R"({"price":2})");
  Entry later = entry;
  later.time_micros = 8;
  const auto result = ledger_->Append({entry, later});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->added, 1u);
  EXPECT_EQ(result->already_there, 1u);
  Open();
  EXPECT_EQ(ledger_->Append({entry})->already_there, 1u);
  ASSERT_TRUE(Post("r1").ok());
  EXPECT_EQ(ledger_->Post({"r1"}, absl::Now())->already_there, 1u);
  EXPECT_EQ(ledger_->Append({entry})->already_there, 1u);
  EXPECT_EQ(Balance(NodeAccount(kAda)), 500);
  EXPECT_EQ(Size(), 3u);
}

TEST_F(LedgerTest, KeyStandsForOneContent) {
  ASSERT_TRUE(AppendWork(Work("r1", kAda, 500)).ok());
  for (const PendingWork& other : {Work("r1", kAda, 501), Work("r1", kBob, 500)}) {
    const absl::Status status = AppendWork(other);
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(std::string(status.message()), HasSubstr("r1"));
  }
  EXPECT_EQ(Append({PendingEntry(Work("r1", kAda, 500), "{}")}).code(),
            absl::StatusCode::kAlreadyExists);
}

TEST_F(LedgerTest, WorkIsResolvedOnce) {
  ASSERT_TRUE(AppendWork(Work("r1", kAda, 500)).ok());
  ASSERT_TRUE(AppendWork(Work("r2", kAda, 500)).ok());
  ASSERT_TRUE(Post("r1").ok());
  EXPECT_EQ(Void("r1", 0).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Void("r2", 1).ok());
  EXPECT_EQ(Post("r2").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Void("r2", 2).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Post("r3").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Post("post:r1").code(), absl::StatusCode::kNotFound);
  // Nor with more than it was worth, nor for someone else.
  ASSERT_TRUE(AppendWork(Work("r4", kAda, 500)).ok());
  Entry other = PostEntry(Work("r4", kAda, 501), 0);
  EXPECT_EQ(Append({other}).code(), absl::StatusCode::kFailedPrecondition);
  other = PostEntry(Work("r4", kBob, 500), 0);
  EXPECT_EQ(Append({other}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ledger_->reader().Pending()->size(), 1u);
}

TEST_F(LedgerTest, CallIsWrittenInFullOrNotAtAll) {
  const std::vector<Entry> entries = {PendingEntry(Work("a", kAda, 1), ""),
                                      PendingEntry(Work("b", kAda, 2), ""),
                                      PostEntry(Work("c", kAda, 3), 0)};
  EXPECT_EQ(Append(entries).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Size(), 1u);
  EXPECT_EQ(Balance(EscrowAccount(kAda)), 0);
}

TEST_F(LedgerTest, RefusesWhatIsNotSound) {
  const Entry good = PendingEntry(Work("r1", kAda, 500), "");
  std::vector<Entry> bad(13, good);
  bad[0].postings[0].amount = 499;
  bad[1].postings[0].account = "pocket:mine";
  bad[2].postings.push_back({NodeAccount(kAda), 0});
  bad[3].key = "";
  bad[4].key = "with space";
  bad[5].key = std::string(201, 'k');
  bad[6].kind = static_cast<EntryKind>(99);
  bad[7].memo = "not json";
  bad[8].memo = "{" + std::string(20000, ' ') + "}";
  bad[9] = PendingEntry(Work("r1", kAda, -500), "");
  bad[10] = PendingEntry(Work("r1", kAda, kMaxPosting + 1), "");
  bad[11].kind = EntryKind::kSettlement;
  bad[12] = OwnerEntry(kAda, "\xff", 0);
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(Append({bad[i]}).code(), absl::StatusCode::kInvalidArgument) << i;
  }
  EXPECT_TRUE(Append({good}).ok());
}

TEST_F(LedgerTest, EvidenceAndTrustMoveNoMoney) {
  Entry entry{.key = "e1", .kind = EntryKind::kEvidence, .memo = R"({"sha256":"ab"})"};
  entry.postings = {{NodeAccount(kAda), 0}};
  EXPECT_TRUE(Append({entry}).ok());
  entry.key = "e2";
  entry.postings = {{NodeAccount(kAda), 5}, {kIssuerAccount, -5}};
  EXPECT_EQ(Append({entry}).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(LedgerTest, PenaltiesAreNeverPaidOutBeyondWhatIsThere) {
  Entry entry{.key = "s1", .kind = EntryKind::kSettlement};
  entry.postings = {{kPenaltyAccount, -5}, {OwnerAccount("carol"), 5}};
  EXPECT_EQ(Append({entry}).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(LedgerTest, FindsEntriesByKeyKindAndAccount) {
  ASSERT_TRUE(AppendWork(Work("r1", kAda, 1)).ok());
  ASSERT_TRUE(AppendWork(Work("r2", kBob, 2)).ok());
  Entry rules{.key = "rules:1", .kind = EntryKind::kRules, .memo = R"({"sha256":"00"})"};
  ASSERT_TRUE(Append({rules, OwnerEntry(kBob, "bob's", 5)}).ok());
  LedgerReader& reader = ledger_->reader();
  EXPECT_EQ((*reader.Find("r2"))->number, 3u);
  EXPECT_EQ(*reader.Find("r3"), std::nullopt);
  EXPECT_EQ(reader.Latest({.limit = 2})->front().entry.kind, EntryKind::kOwner);
  EXPECT_EQ(reader.Latest({.kind = EntryKind::kRules})->at(0).entry, rules);
  EXPECT_EQ(reader.Latest({.kind = EntryKind::kPending})->size(), 2u);
  EXPECT_EQ(reader.Latest({.account = EscrowAccount(kBob)})->at(0).entry.key, "r2");
  EXPECT_EQ(
      reader.EntriesOf({EscrowAccount(kBob), OwnerAccount("bob's"), NodeAccount(kBob)})->size(),
      2u);
  EXPECT_EQ(reader.Pending(kBob)->at(0), Work("r2", kBob, 2));
  EXPECT_EQ(reader.Balances("escrow:")->size(), 2u);
}

TEST_F(LedgerTest, HeadsAreSignedKeptAndProven) {
  const SigningKey key = Key();
  std::vector<SignedLedgerHead> heads;
  for (int i = 0; i < 300; ++i) {
    if (i % 7 == 0) heads.push_back(*ledger_->SignHead(key, absl::Now()));
    ASSERT_TRUE(AppendWork(Work(absl::StrCat("r", i), kAda, 1)).ok());
  }
  heads.push_back(*ledger_->SignHead(key, absl::Now()));
  EXPECT_EQ(*ledger_->SignHead(key, absl::Now()), heads.back());
  EXPECT_EQ(*ledger_->reader().LatestHead(), heads.back());
  for (size_t i = 1; i < heads.size(); ++i) {
    for (const size_t j : {size_t{0}, i / 2, i - 1}) {
      const auto proof = ledger_->reader().ProveConsistency(heads[j].head.size, heads[i].head.size);
      ASSERT_TRUE(proof.ok()) << proof.status();
      EXPECT_TRUE(IsSigned(heads[i]));
      EXPECT_TRUE(CheckHeadFollows(heads[j].head, heads[i].head, *proof).ok());
    }
  }
  for (const uint64_t number : {1, 2, 255, 256, 257, 301}) {
    const auto proof = ledger_->reader().ProveInclusion(number, 301);
    const auto entry = ledger_->reader().Latest({.limit = 302 - number});
    EXPECT_TRUE(VerifyInclusion(MerkleLeaf(entry->back().hash), number - 1, 301, *proof,
                                heads.back().head.root));
  }
  EXPECT_EQ(ledger_->reader().Head(302).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Fault({.heads = heads, .signer = key.public_key()}), "");
}

TEST_F(LedgerTest, CanNotBeChangedThroughSql) {
  ASSERT_TRUE(AppendWork(Work("r1", kAda, 500)).ok());
  ASSERT_TRUE(ledger_->SignHead(Key(), absl::Now()).ok());
  Close();
  auto database = Database::Open(path_, LedgerMigrations(), kLedgerOptions);
  ASSERT_TRUE(database.ok()) << database.status();
  for (const char* sql : {
           "UPDATE entries SET memo = ''",
           "UPDATE OR REPLACE entries SET number = 1 WHERE number = 2",
           "DELETE FROM entries",
           "REPLACE INTO entries SELECT number, key, kind, time, about, tokens, flops, '{}', hash "
           "FROM entries WHERE number = 2",
           "REPLACE INTO entries SELECT 3, key, kind, time, about, tokens, flops, '{}', hash "
           "FROM entries WHERE number = 2",
           "INSERT INTO entries SELECT 9, 'k', kind, time, about, tokens, flops, '{}', hash "
           "FROM entries WHERE number = 2",
           "UPDATE postings SET amount = 0",
           "DELETE FROM postings",
           "REPLACE INTO postings SELECT entry, line, account, 0 FROM postings",
           "INSERT INTO postings SELECT entry, line + 5, account, amount FROM postings",
           "UPDATE heads SET size = 1",
           "DELETE FROM heads",
           "REPLACE INTO heads SELECT * FROM heads",
           "DELETE FROM accounts",
           "UPDATE accounts SET name = 'x'",
       }) {
    const absl::Status status = (*database)->Transact(
        [&](Transaction& transaction) { return transaction.Execute(sql).status(); });
    EXPECT_THAT(std::string(status.message()), HasSubstr("append-only")) << sql;
  }
  const absl::Status unbalanced = (*database)->Transact([](Transaction& sql) -> absl::Status {
    auto posted = sql.Execute("INSERT INTO postings VALUES (3, 0, 1, 5)");
    if (!posted.ok()) return posted.status();
    return sql
        .Execute(
            "INSERT INTO entries SELECT 3, 'k', kind, time, about, tokens, flops, '{}', hash "
            "FROM entries WHERE number = 2")
        .status();
  });
  EXPECT_THAT(std::string(unbalanced.message()), HasSubstr("sum to zero"));
  *database = nullptr;
  EXPECT_EQ(Fault(), "");
}

TEST_F(LedgerTest, ReadersStopNoWriterAndSeeWholeCalls) {
  std::atomic<bool> done = false;
  std::atomic<int> looks = 0;
  std::thread reader([&] {
    auto own = LedgerReader::Open(path_);
    while (!done) {
      Micros sum = 0;
      const std::vector<AccountBalance> balances = *(*own)->Balances();
      for (const AccountBalance& balance : balances) sum += balance.balance;
      EXPECT_EQ(sum, 0);
      EXPECT_EQ((*own)->Pending()->size() % 10, 0u);
      ++looks;
    }
  });
  for (int i = 0; i < 30 || looks < 5; ++i) {
    std::vector<Entry> entries;
    for (int j = 0; j < 10; ++j) {
      entries.push_back(PendingEntry(Work(absl::StrCat(i, ".", j), kAda, j), ""));
    }
    ASSERT_TRUE(Append(entries).ok());
  }
  done = true;
  reader.join();
}

TEST_F(LedgerTest, BackupIsACopyThatVerifies) {
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(AppendWork(Work(absl::StrCat("r", i), kAda, 1)).ok());
  const std::string copy = dir_ + "/copy.db";
  ASSERT_TRUE(ledger_->reader().Backup(copy).ok());
  ASSERT_TRUE(AppendWork(Work("after", kAda, 1)).ok());
  const auto verification = VerifyLedger(copy);
  ASSERT_TRUE(verification.ok()) << verification.status();
  EXPECT_FALSE(verification->fault.has_value()) << verification->fault->what;
  EXPECT_TRUE(verification->all_bytes_checked);
  EXPECT_EQ(verification->head.size, 21u);
  EXPECT_FALSE(Verify().all_bytes_checked);
}

TEST_F(LedgerTest, IsSealedAgainAfterAnotherProgramFinishedItsLog) {
  ASSERT_TRUE(AppendWork(Work("r1", kAda, 500)).ok());
  const std::string killed = dir_ + "/killed.db";
  std::filesystem::copy(path_, killed);
  std::filesystem::copy(path_ + "-wal", killed + "-wal");
  { ASSERT_TRUE(Database::Open(killed, LedgerMigrations()).ok()); }
  path_ = killed;
  EXPECT_GT(Verify().seals.unsealed, 0u);
  EXPECT_EQ(Fault(), "");
  Open();
  Close();
  EXPECT_EQ(Verify().seals.unsealed, 0u);
  EXPECT_EQ(Fault(), "");
}

TEST_F(LedgerTest, FullDiskRefusesWorkAndNothingIsLost) {
  Close();
  const std::string mount_point = dir_ + "/disk";
  std::filesystem::create_directory(mount_point);
  if (mount("none", mount_point.c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "may not mount a small disk here";
  }
  path_ = LedgerPath(mount_point);
  Open();
  const std::string ballast = mount_point + "/ballast";
  std::ofstream(ballast) << std::string(300 << 10, 'x');
  absl::Status status;
  uint64_t written = 0;
  for (; status.ok() && written < 10000; written += status.ok() ? 1 : 0) {
    status = Append({PendingEntry(Work(absl::StrCat("r", written), kAda, 1),
                                  absl::StrCat(R"({"a":")", std::string(2000, 'x'), R"("})"))});
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("disk is full"));
  EXPECT_EQ(Size(), written + 1);
  EXPECT_EQ(Balance(EscrowAccount(kAda)), static_cast<Micros>(written));
  std::filesystem::remove(ballast);
  EXPECT_TRUE(AppendWork(Work("again", kAda, 1)).ok());
  Open();
  EXPECT_EQ(Size(), written + 2);
  Close();
  EXPECT_EQ(Fault(), "");
  EXPECT_EQ(umount2(mount_point.c_str(), MNT_DETACH), 0);
}

TEST_F(LedgerTest, IsNotMadeOfAnotherFile) {
  Close();
  Overwrite(std::string(8192, 'x'));
  EXPECT_FALSE(Ledger::Open(path_, absl::Now()).ok());
  EXPECT_EQ(LedgerReader::Open(dir_ + "/none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace efedllm
