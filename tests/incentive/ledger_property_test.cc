// Random operations against a model of a few lines.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "common/random.h"
#include "incentive/ledger_world.h"
#include "incentive/statement.h"

namespace efedllm {
namespace {

constexpr int kSeeds = 8;
constexpr int kOperations = 60;

NodeId SomeNode(Random& random) { return NodeId{1 + random.Below(3)}; }

// What the ledger should say to the same operations.
class Model {
 public:
  // Whether the entry is taken; changes the balances if so.
  bool Take(const Entry& entry) {
    const auto said = said_.find(entry.key);
    if (said != said_.end()) return SaysTheSame(said->second, entry);
    const bool resolves = entry.kind == EntryKind::kPost || entry.kind == EntryKind::kVoid;
    if (resolves && !Resolves(entry)) return false;
    for (const Posting& posting : entry.postings) {
      const bool guarded = posting.account == kPenaltyAccount || posting.account[0] == 'e';
      if (guarded && balances_[posting.account] + posting.amount < 0) return false;
    }
    for (const Posting& posting : entry.postings) balances_[posting.account] += posting.amount;
    if (entry.kind == EntryKind::kPending) open_[entry.key] = entry;
    open_.erase(entry.about);
    said_[entry.key] = entry;
    return true;
  }

  const std::map<std::string, Micros>& balances() const { return balances_; }
  const std::map<std::string, Entry>& said() const { return said_; }
  const std::map<std::string, Entry>& open() const { return open_; }

 private:
  // All of the work's pay leaves the escrow that it is in.
  bool Resolves(const Entry& entry) const {
    const auto work = open_.find(entry.about);
    if (work == open_.end()) return false;
    const Posting& in = work->second.postings[0];
    return entry.postings[0] == Posting{in.account, -in.amount};
  }

  std::map<std::string, Micros> balances_;
  std::map<std::string, Entry> said_, open_;
};

Entry PenaltyEntry(const std::string& key, NodeId node, Micros amount) {
  Entry entry{.key = key, .kind = EntryKind::kPenalty};
  entry.postings = {{NodeAccount(node), -amount}, {kPenaltyAccount, amount}};
  return entry;
}

Entry SettlementEntry(const std::string& key, const std::string& from, Micros amount) {
  Entry entry{.key = key, .kind = EntryKind::kSettlement};
  entry.postings = {{from, -amount}, {OwnerAccount("o"), amount}};
  Normalize(entry);
  return entry;
}

Entry UsageEntry(const std::string& key, const std::string& api_key, Micros amount) {
  Entry entry{.key = key, .kind = EntryKind::kUsage};
  entry.postings = {{kIssuerAccount, amount}, {ApiKeyAccount(api_key), -amount}};
  entry.tokens = static_cast<uint64_t>(amount) * 2;
  entry.flops = static_cast<uint64_t>(amount) * 1000;
  return entry;
}

// From few keys and amounts, so that retries, conflicts and overdrafts are common.
Entry SomeEntry(Random& random, const Model& model) {
  const auto time = static_cast<int64_t>(random.Below(1000));
  const std::string key = absl::StrCat("k", random.Below(25));
  const auto amount = static_cast<Micros>(random.Below(4));
  const auto work = [&] {
    if (model.said().empty() || random.Below(4) == 0) return Work(key, SomeNode(random), amount);
    auto some = model.said().begin();
    std::advance(some, random.Below(model.said().size()));
    return some->second.kind == EntryKind::kPending ? WorkOf(some->second)
                                                    : Work(key, SomeNode(random), amount);
  };
  switch (random.Below(8)) {
    case 0:
    case 1:
    case 2:
      return PendingEntry(Work(key, SomeNode(random), amount, time), "");
    case 3:
    case 4:
      return PostEntry(work(), time);
    case 5:
      return VoidEntry(work(), amount, time, "");
    case 6:
      return random.Below(2) ? PenaltyEntry(key, SomeNode(random), amount)
                             : UsageEntry(key, "a", amount);
    default:
      return SettlementEntry(
          key, random.Below(3) ? NodeAccount(SomeNode(random)) : std::string(kPenaltyAccount),
          amount);
  }
}

class LedgerProperties : public LedgerWorld {
 protected:
  void CheckBalances(const Model& model) {
    Micros sum = 0;
    std::map<std::string, Micros> balances;
    const std::vector<AccountBalance> kept = *ledger_->reader().Balances();
    for (const AccountBalance& balance : kept) {
      sum += balance.balance;
      balances[balance.account] = balance.balance;
      if (!MayBeNegative(balance.account)) EXPECT_GE(balance.balance, 0) << balance.account;
    }
    EXPECT_EQ(sum, 0);
    for (const auto& [account, balance] : model.balances()) {
      EXPECT_EQ(balances[account], balance) << account;
    }
    EXPECT_EQ(ledger_->reader().Pending()->size(), model.open().size());
    EXPECT_EQ(Size(), model.said().size() + 1);
  }

  void RunSeed(uint64_t seed) {
    Random random(seed);
    Model model;
    for (int i = 0; i < kOperations; ++i) {
      std::vector<Entry> batch;
      for (uint64_t n = 1 + random.Below(4); n > 0; --n) {
        batch.push_back(SomeEntry(random, model));
        Normalize(batch.back());
      }
      Model after = model;
      bool takes = true;
      for (const Entry& entry : batch) takes = takes && after.Take(entry);
      const auto result = ledger_->Append(batch);
      ASSERT_EQ(result.ok(), takes) << "operation " << i << ": " << result.status();
      if (takes) {
        EXPECT_EQ(result->added, after.said().size() - model.said().size());
        model = after;
        EXPECT_EQ(ledger_->Append(batch)->already_there, batch.size());  // a retry is harmless
      }
      if (random.Below(20) == 0) Open();
    }
    CheckBalances(model);
  }
};

TEST_F(LedgerProperties, KeepsItsPromisesOverRandomOperations) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Close();
    std::filesystem::remove(path_);
    Open();
    RunSeed(seed);
    Close();
    ASSERT_EQ(Fault(), "");
    Open();
  }
}

// Entries that don't depend on each other, in any order, give the same statements.
TEST_F(LedgerProperties, StatementsDoNotDependOnTheOrderOfEntries) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Random random(seed);
    Model model;
    std::vector<RecordedEntry> entries;
    for (int i = 0; i < 200; ++i) {
      Entry entry = SomeEntry(random, model);
      Normalize(entry);
      const size_t before = model.said().size();
      if (model.Take(entry) && model.said().size() > before) entries.push_back({0, entry, {}});
    }
    for (uint64_t node = 1; node <= 3; ++node) {
      Entry binding = OwnerEntry(NodeId{node}, node == 3 ? "p" : "o", 100 * static_cast<int>(node));
      entries.push_back({0, binding, {}});
    }
    entries.push_back({0, OwnerEntry(NodeId{1}, "p", 600), {}});
    const std::vector<StatementQuery> queries = {
        {StatementSubject::kOwner, "o", 0, 1000},
        {StatementSubject::kOwner, "p", 200, 700},
        {StatementSubject::kOwner, "o", 300, 400},
        {StatementSubject::kApiKey, "a", 0, 500},
        {StatementSubject::kNode, NodeName(NodeId{1}), 0, 900}};
    for (const StatementQuery& query : queries) {
      const std::string csv = StatementCsv(MakeStatement(query, entries));
      const std::string json = StatementJson(MakeStatement(query, entries)).dump();
      for (int shuffle = 0; shuffle < 4; ++shuffle) {
        for (size_t i = entries.size(); i > 1; --i) {
          std::swap(entries[i - 1], entries[random.Below(i)]);
        }
        EXPECT_EQ(StatementCsv(MakeStatement(query, entries)), csv);
        EXPECT_EQ(StatementJson(MakeStatement(query, entries)).dump(), json);
      }
    }
  }
}

// The parts of a time add up to the whole.
TEST_F(LedgerProperties, StatementsOfPartsOfATimeAddUp) {
  Random random(5);
  Model model;
  std::vector<RecordedEntry> entries;
  for (int i = 0; i < 300; ++i) {
    Entry entry = SomeEntry(random, model);
    Normalize(entry);
    const size_t before = model.said().size();
    if (model.Take(entry) && model.said().size() > before) entries.push_back({0, entry, {}});
  }
  const std::string node = NodeName(NodeId{2});
  const auto totals = [&](int64_t from, int64_t to) {
    return MakeStatement({StatementSubject::kNode, node, from, to}, entries).totals;
  };
  const StatementTotals whole = totals(0, 1000), first = totals(0, 400), second = totals(400, 1000);
  EXPECT_EQ(whole.earned, first.earned + second.earned);
  EXPECT_EQ(whole.posted, first.posted + second.posted);
  EXPECT_EQ(whole.penalties, first.penalties + second.penalties);
  EXPECT_EQ(whole.tokens, first.tokens + second.tokens);
  EXPECT_EQ(first.closing, second.opening);
  EXPECT_EQ(whole.closing, second.closing);
  EXPECT_EQ(whole.closing - whole.opening, whole.posted - whole.penalties - whole.settled);
}

}  // namespace
}  // namespace efedllm
