#include "incentive/ledger.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "incentive/ledger_tables.h"
#include "store/sealed_pages.h"

namespace efedllm {
namespace {

constexpr size_t kLedgerNameBytes = 16;

absl::Status About(const Entry& entry, absl::StatusCode code, absl::string_view what) {
  return {code, absl::StrCat("entry ", entry.key, " (", KindName(entry.kind), "): ", what)};
}

// Appends entries within one transaction.
class Appender {
 public:
  explicit Appender(Transaction& sql) : sql_(sql) {}

  absl::Status Begin() {
    ASSIGN_OR_RETURN(tip_, ReadTip(sql_));
    return absl::OkStatus();
  }

  absl::Status Append(Entry entry) {
    Normalize(entry);
    RETURN_IF_ERROR(CheckEntry(entry));
    RETURN_IF_ERROR(CheckText(entry));
    ASSIGN_OR_RETURN(const std::optional<uint64_t> there, FindNumber(sql_, entry.key));
    if (there.has_value()) return CheckSaidBefore(entry, *there);
    if (entry.kind == EntryKind::kPost || entry.kind == EntryKind::kVoid) {
      RETURN_IF_ERROR(Resolve(entry));
    }
    const uint64_t number = tip_.size + 1;
    RETURN_IF_ERROR(WritePostings(entry, number));
    RETURN_IF_ERROR(WriteEntry(entry, number));
    if (entry.kind == EntryKind::kPending) {
      RETURN_IF_ERROR(Run("INSERT INTO open_work VALUES (?)", {static_cast<int64_t>(number)}));
    }
    ++result_.added;
    return KeepSubtrees();
  }

  const AppendResult& result() const { return result_; }

 private:
  absl::Status Run(const std::string& statement, const SqlRow& values) {
    return sql_.Execute(statement, values).status();
  }

  absl::Status CheckSaidBefore(const Entry& entry, uint64_t number) {
    ASSIGN_OR_RETURN(const std::optional<RecordedEntry> before, ReadEntry(sql_, number));
    if (!before.has_value() || !SaysTheSame(before->entry, entry)) {
      return About(entry, absl::StatusCode::kAlreadyExists,
                   absl::StrCat("entry ", number, " has this key and says something else"));
    }
    ++result_.already_there;
    return absl::OkStatus();
  }

  // Takes the work that a post or void is about from what is open.
  absl::Status Resolve(const Entry& entry) {
    ASSIGN_OR_RETURN(const std::optional<uint64_t> number, FindNumber(sql_, entry.about));
    std::optional<RecordedEntry> work;
    if (number.has_value()) {
      ASSIGN_OR_RETURN(work, ReadEntry(sql_, *number));
    }
    if (!work.has_value() || work->entry.kind != EntryKind::kPending) {
      return About(entry, absl::StatusCode::kNotFound,
                   absl::StrCat("no pending work has the key ", entry.about));
    }
    RETURN_IF_ERROR(CheckResolves(entry, WorkOf(work->entry)));
    ASSIGN_OR_RETURN(const int64_t taken, sql_.Execute("DELETE FROM open_work WHERE entry = ?",
                                                       {static_cast<int64_t>(*number)}));
    if (taken == 1) return absl::OkStatus();
    return About(entry, absl::StatusCode::kFailedPrecondition,
                 absl::StrCat(entry.about, " is posted or voided already"));
  }

  absl::Status WritePostings(const Entry& entry, uint64_t number) {
    for (size_t line = 0; line < entry.postings.size(); ++line) {
      const Posting& posting = entry.postings[line];
      RETURN_IF_ERROR(
          Run("INSERT OR IGNORE INTO accounts (name, balance) VALUES (?, 0)", {posting.account}));
      ASSIGN_OR_RETURN(
          const std::vector<SqlRow> rows,
          sql_.Query("SELECT id, balance FROM accounts WHERE name = ?", {posting.account}));
      if (rows.empty()) return absl::DataLossError("the ledger's index of accounts is damaged");
      Micros balance = SqlInt(rows[0][1]);
      if (__builtin_add_overflow(balance, posting.amount, &balance)) {
        return About(entry, absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("the balance of ", posting.account, " would overflow"));
      }
      if (balance < 0 && !MayBeNegative(posting.account)) {
        return About(entry, absl::StatusCode::kFailedPrecondition,
                     absl::StrCat(posting.account, " would become negative"));
      }
      RETURN_IF_ERROR(Run(
          "INSERT INTO postings VALUES (?, ?, ?, ?)",
          {static_cast<int64_t>(number), static_cast<int64_t>(line), rows[0][0], posting.amount}));
      RETURN_IF_ERROR(Run("UPDATE accounts SET balance = ? WHERE id = ?", {balance, rows[0][0]}));
    }
    return absl::OkStatus();
  }

  absl::Status WriteEntry(const Entry& entry, uint64_t number) {
    tip_ = {number, ChainHash(tip_.chain, CanonicalBytes(entry, number))};
    return Run("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS BLOB))",
               {static_cast<int64_t>(number), entry.key, static_cast<int64_t>(entry.kind),
                entry.time_micros, entry.about, static_cast<int64_t>(entry.tokens),
                static_cast<int64_t>(entry.flops), entry.memo, BytesOf(tip_.chain)});
  }

  // The roots that the last entry completed.
  absl::Status KeepSubtrees() {
    for (uint32_t level = kKeptLevels; tip_.size % (uint64_t{1} << level) == 0;
         level += kKeptLevels) {
      const uint64_t first = tip_.size - (uint64_t{1} << level);
      ASSIGN_OR_RETURN(const Sha256Digest root, ReadSubtree(sql_, first, level));
      RETURN_IF_ERROR(Run("INSERT INTO subtrees VALUES (?, ?, CAST(? AS BLOB))",
                          {int64_t{level}, static_cast<int64_t>(first), BytesOf(root)}));
    }
    return absl::OkStatus();
  }

  Transaction& sql_;
  LedgerTip tip_;
  AppendResult result_;
};

// Two ledgers never begin with the same hash.
Entry OpeningEntry(absl::Time now) {
  const std::string name = absl::BytesToHexString(SecureRandomBytes(kLedgerNameBytes));
  return {.key = "opening",
          .kind = EntryKind::kOpening,
          .time_micros = absl::ToUnixMicros(now),
          .memo = absl::StrCat(R"({"format":1,"ledger":")", name, R"("})")};
}

absl::StatusOr<PendingWork> WorkWithKey(Transaction& sql, const std::string& key) {
  ASSIGN_OR_RETURN(const std::optional<uint64_t> number, FindNumber(sql, key));
  std::optional<RecordedEntry> entry;
  if (number.has_value()) {
    ASSIGN_OR_RETURN(entry, ReadEntry(sql, *number));
  }
  if (!entry.has_value() || entry->entry.kind != EntryKind::kPending) {
    return absl::NotFoundError(absl::StrCat("no pending work has the key ", key));
  }
  return WorkOf(entry->entry);
}

// After a kill, another program may have finished the log: its pages have no seals yet.
absl::Status SealAllPages(Database& database, const std::string& path) {
  ASSIGN_OR_RETURN(const SealReport report, CheckSeals(path));
  return report.unsealed == 0 ? absl::OkStatus() : database.Rewrite();
}

}  // namespace

std::string LedgerPath(const std::string& state_dir) { return state_dir + "/ledger.db"; }

absl::StatusOr<std::unique_ptr<Ledger>> Ledger::Open(const std::string& path, absl::Time now) {
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database,
                   Database::Open(path, LedgerMigrations(), kLedgerOptions));
  RETURN_IF_ERROR(SealAllPages(*database, path));
  RETURN_IF_ERROR(database->Transact([&](Transaction& sql) -> absl::Status {
    Appender appender(sql);
    RETURN_IF_ERROR(appender.Begin());
    ASSIGN_OR_RETURN(const LedgerTip tip, ReadTip(sql));
    return tip.size > 0 ? absl::OkStatus() : appender.Append(OpeningEntry(now));
  }));
  ASSIGN_OR_RETURN(std::unique_ptr<LedgerReader> reader, LedgerReader::Open(path));
  return std::unique_ptr<Ledger>(new Ledger(std::move(database), std::move(reader)));
}

absl::StatusOr<AppendResult> Ledger::Append(absl::Span<const Entry> entries) {
  AppendResult result;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    Appender appender(sql);
    RETURN_IF_ERROR(appender.Begin());
    for (const Entry& entry : entries) RETURN_IF_ERROR(appender.Append(entry));
    result = appender.result();
    return absl::OkStatus();
  }));
  return result;
}

absl::StatusOr<AppendResult> Ledger::Post(absl::Span<const std::string> pending_keys,
                                          absl::Time now) {
  AppendResult result;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    Appender appender(sql);
    RETURN_IF_ERROR(appender.Begin());
    for (const std::string& key : pending_keys) {
      ASSIGN_OR_RETURN(const PendingWork work, WorkWithKey(sql, key));
      RETURN_IF_ERROR(appender.Append(PostEntry(work, absl::ToUnixMicros(now))));
    }
    result = appender.result();
    return absl::OkStatus();
  }));
  return result;
}

absl::StatusOr<AppendResult> Ledger::Void(const std::string& pending_key, Micros penalty,
                                          const std::string& memo, absl::Time now) {
  AppendResult result;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    Appender appender(sql);
    RETURN_IF_ERROR(appender.Begin());
    ASSIGN_OR_RETURN(const PendingWork work, WorkWithKey(sql, pending_key));
    RETURN_IF_ERROR(appender.Append(VoidEntry(work, penalty, absl::ToUnixMicros(now), memo)));
    result = appender.result();
    return absl::OkStatus();
  }));
  return result;
}

absl::StatusOr<SignedLedgerHead> Ledger::SignHead(const SigningKey& key, absl::Time now) {
  ASSIGN_OR_RETURN(const std::optional<SignedLedgerHead> latest, reader_->LatestHead());
  ASSIGN_OR_RETURN(const uint64_t size, reader_->Size());
  if (latest.has_value() && latest->head.size == size && latest->key == key.public_key()) {
    return *latest;
  }
  ASSIGN_OR_RETURN(LedgerHead head, reader_->Head(size));
  head.time_micros = absl::ToUnixMicros(now);
  const SignedLedgerHead signed_head = efedllm::SignHead(head, key);
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) {
    return sql
        .Execute(absl::StrCat("INSERT INTO heads (", kHeadColumns,
                              ") VALUES (?, ?, CAST(? AS BLOB), CAST(? AS BLOB), "
                              "CAST(? AS BLOB), CAST(? AS BLOB))"),
                 {static_cast<int64_t>(head.size), head.time_micros, BytesOf(head.root),
                  BytesOf(head.chain), std::string(signed_head.key.begin(), signed_head.key.end()),
                  std::string(signed_head.signature.begin(), signed_head.signature.end())})
        .status();
  }));
  return signed_head;
}

}  // namespace efedllm
