#include "incentive/ledger_verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "incentive/ledger_tables.h"
#include "incentive/ledger_world.h"

namespace efedllm {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class LedgerVerify : public LedgerWorld {
 protected:
  void SetUp() override {
    LedgerWorld::SetUp();
    std::vector<Entry> entries;
    for (int i = 0; i < 40; ++i) {
      const PendingWork work = Work(absl::StrCat("r", i), i % 2 ? kAda : kBob, 100 + i);
      entries.push_back(PendingEntry(work, "{}"));
      if (i % 3 == 0) {
        entries.push_back(PostEntry(work, i));
      } else if (i % 7 == 1) {
        entries.push_back(VoidEntry(work, 1000, i, ""));
      }
    }
    ASSERT_TRUE(Append(entries).ok());
    ASSERT_TRUE(ledger_->SignHead(Key(), absl::Now()).ok());
  }

  // Changes the closed file through SQL, behind the triggers' back, with good seals.
  void Tamper(const std::string& sql) {
    Close();
    auto database = Database::Open(path_, LedgerMigrations(), kLedgerOptions);
    ASSERT_TRUE(database.ok()) << database.status();
    const absl::Status status =
        (*database)->Transact([&](Transaction& transaction) -> absl::Status {
          auto triggers =
              transaction.Query("SELECT name, sql FROM sqlite_schema WHERE type='trigger'");
          for (const SqlRow& row : *triggers) {
            auto dropped = transaction.Execute("DROP TRIGGER " + SqlText(row[0]));
            if (!dropped.ok()) return dropped.status();
          }
          if (auto changed = transaction.Execute(sql); !changed.ok()) return changed.status();
          for (const SqlRow& row : *triggers) {
            auto made = transaction.Execute(SqlText(row[1]));
            if (!made.ok()) return made.status();
          }
          return absl::OkStatus();
        });
    ASSERT_TRUE(status.ok()) << status;
  }
};

TEST_F(LedgerVerify, TakesWhatWasWritten) {
  EXPECT_EQ(Fault(), "");
  Close();
  const LedgerVerification verification = Verify({.signer = Key().public_key()});
  EXPECT_FALSE(verification.fault.has_value()) << Fault();
  EXPECT_TRUE(verification.all_bytes_checked);
  EXPECT_EQ(verification.signed_heads, 1u);
  EXPECT_EQ(verification.key, Key().public_key());
  EXPECT_EQ(verification.issued, verification.in_escrow + verification.with_nodes +
                                     verification.with_owners + verification.penalties);
}

TEST_F(LedgerVerify, NamesTheFirstBadEntry) {
  Tamper("UPDATE entries SET memo = '{\"a\":1}' WHERE number IN (9, 12)");
  EXPECT_THAT(Fault(), StartsWith("9 "));
  EXPECT_THAT(Fault(), HasSubstr("hash"));
}

TEST_F(LedgerVerify, FindsWhatIsChangedBehindTheTriggers) {
  const std::string before = [&] {
    Close();
    return Contents();
  }();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"UPDATE entries SET time = time + 1 WHERE number = 5", "5 "},
      {"UPDATE entries SET key = 'other' WHERE number = 5", "5 other"},
      {"UPDATE entries SET kind = 11 WHERE number = 5", "5 "},
      {"UPDATE postings SET amount = amount + 1 WHERE entry = 5 AND line = 0", "5 "},
      {"UPDATE postings SET amount = amount * 2 WHERE entry = 5", "5 "},
      {"UPDATE postings SET account = 1 WHERE entry = 5 AND line = 0", "5 "},
      {"DELETE FROM postings WHERE entry = 5", "5 "},
      {"INSERT INTO postings VALUES (5, 7, 1, 0)", "5 "},
      {"INSERT INTO postings VALUES (999, 0, 1, 0)", "there are postings"},
      {"INSERT INTO postings VALUES (-1, 0, 1, 0)", "there are postings"},
      {"DELETE FROM entries WHERE number = 5", "5 "},
      {"DELETE FROM entries WHERE number = 1", "1 "},
      {"DELETE FROM entries WHERE number > 20", "there are postings"},
      {"DELETE FROM entries", "there are postings"},
      {"UPDATE entries SET hash = zeroblob(32) WHERE number = 7", "7 "},
      {"UPDATE accounts SET balance = balance + 1 WHERE id = 2", "the balance kept for"},
      {"UPDATE accounts SET name = 'owner:me' WHERE id = 1", "2 "},
      {"INSERT INTO accounts VALUES (99, 'owner:me', 0)", "the balance kept for owner:me"},
      {"DELETE FROM open_work WHERE entry = (SELECT max(entry) FROM open_work)",
       "the list of open"},
      {"INSERT INTO open_work VALUES (1)", "the list of open"},
      {"INSERT INTO subtrees VALUES (8, 0, zeroblob(32))", "the kept roots"},
      {"UPDATE heads SET time = time + 1", "the head of"},
      {"UPDATE heads SET size = size - 1", "the head of"},
      {"UPDATE heads SET signature = zeroblob(64)", "the head of"},
      {"UPDATE heads SET root = zeroblob(3)", "the head of"},
      {"PRAGMA user_version = 2", "it is not a ledger of this version"},
      {"CREATE TABLE more (a)", "its tables and triggers"},
      {"DROP INDEX postings_by_account", "its tables and triggers"},
  };
  for (const auto& [sql, fault] : cases) {
    Overwrite(before);
    Tamper(sql);
    EXPECT_THAT(Fault(), StartsWith(fault)) << sql;
  }
}

TEST_F(LedgerVerify, FindsATriggerThatIsGone) {
  Close();
  {
    auto database = Database::Open(path_, LedgerMigrations(), kLedgerOptions);
    EXPECT_TRUE((*database)
                    ->Transact([](Transaction& sql) {
                      return sql.Execute("DROP TRIGGER entries_stay").status();
                    })
                    .ok());
  }
  EXPECT_THAT(Fault(), HasSubstr("triggers"));
}

TEST_F(LedgerVerify, FindsHistoryThatWasWrittenAnew) {
  const SignedLedgerHead kept = *ledger_->SignHead(Key(), absl::Now());
  Close();
  const std::string first = Contents();
  // The same opening, and then something else.
  std::filesystem::remove(path_);
  Open();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(AppendWork(Work(absl::StrCat("f", i), kAda, 9)).ok());
  Close();
  EXPECT_EQ(Fault(), "");
  EXPECT_THAT(Fault({.heads = {kept}}), HasSubstr("another ledger"));
  Overwrite(first);
  EXPECT_EQ(Fault({.heads = {kept}}), "");
  SignedLedgerHead other = kept;
  other.head.root[0] ^= 1;
  EXPECT_THAT(Fault({.heads = {other}}), HasSubstr("not signed"));
  other = SignHead(other.head, Key());
  EXPECT_THAT(Fault({.heads = {other}}), HasSubstr("fork"));
  other.head = kept.head;
  other.head.size += 5;
  EXPECT_THAT(Fault({.heads = {SignHead(other.head, Key())}}), HasSubstr("missing"));
  EXPECT_THAT(Fault({.signer = Key("stranger").public_key()}), HasSubstr("not signed"));
}

// Some bits through the whole of verification; that seals show each of them is proven bit by bit in
// tests/store/sealed_pages_test.cc.
TEST_F(LedgerVerify, FindsEveryBitThatChanges) {
  Close();
  std::string file = Contents();
  const auto check = [&](size_t bit) {
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ (1 << bit % 8));
    Overwrite(file);
    const LedgerVerification verification = Verify();
    ASSERT_TRUE(verification.fault.has_value()) << "bit " << bit;
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ (1 << bit % 8));
  };
  for (size_t bit = 0; bit < 100 * 8; bit += 5) check(bit);
  for (size_t bit = 800; bit < file.size() * 8; bit += 4999) check(bit);
  Overwrite(file);
  EXPECT_EQ(Fault(), "");
}

TEST_F(LedgerVerify, FindsAnotherLength) {
  Close();
  const std::string file = Contents();
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{99}, size_t{4096}, file.size() - 4096, file.size() - 1}) {
    Overwrite(file.substr(0, size));
    EXPECT_NE(Fault(), "") << size;
  }
  for (const size_t more : {1, 512, 4096, 8192}) {
    Overwrite(file + std::string(more, '\0'));
    EXPECT_NE(Fault(), "") << more;
  }
  std::filesystem::remove(path_);
  EXPECT_EQ(VerifyLedger(path_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(LedgerVerify, ReadsTheLogOfARunningOrKilledWriter) {
  const LedgerVerification verification = Verify();
  EXPECT_FALSE(verification.fault.has_value());
  EXPECT_FALSE(verification.all_bytes_checked);
  EXPECT_EQ(verification.head.size, Size());
}

}  // namespace
}  // namespace efedllm
