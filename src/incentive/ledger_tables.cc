#include "incentive/ledger_tables.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

// Append-only, also for REPLACE, which removes rows without asking their triggers. Postings come
// before their entry, which then sees that they sum to zero.
constexpr char kSchema[] = R"sql(
CREATE TABLE accounts (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  balance INTEGER NOT NULL);
CREATE TABLE entries (
  number INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  kind INTEGER NOT NULL,
  time INTEGER NOT NULL,
  about TEXT NOT NULL,
  tokens INTEGER NOT NULL,
  flops INTEGER NOT NULL,
  memo TEXT NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32));
CREATE INDEX entries_without_money ON entries (kind, number) WHERE kind >= 8;
CREATE TABLE postings (
  entry INTEGER NOT NULL,
  line INTEGER NOT NULL,
  account INTEGER NOT NULL REFERENCES accounts (id),
  amount INTEGER NOT NULL,
  PRIMARY KEY (entry, line)) WITHOUT ROWID;
CREATE INDEX postings_by_account ON postings (account, entry);
CREATE TABLE open_work (entry INTEGER PRIMARY KEY);
CREATE TABLE subtrees (
  level INTEGER NOT NULL,
  first INTEGER NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (level, first)) WITHOUT ROWID;
CREATE TABLE heads (
  id INTEGER PRIMARY KEY,
  size INTEGER NOT NULL,
  time INTEGER NOT NULL,
  root BLOB NOT NULL,
  chain BLOB NOT NULL,
  key BLOB NOT NULL,
  signature BLOB NOT NULL);

CREATE TRIGGER entries_are_appended BEFORE INSERT ON entries
WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM entries)
  OR EXISTS (SELECT 1 FROM entries WHERE key = NEW.key)
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entries_sum_to_zero BEFORE INSERT ON entries
WHEN (SELECT coalesce(sum(amount), 0) FROM postings WHERE entry = NEW.number) <> 0
BEGIN SELECT raise(ABORT, 'the postings of an entry sum to zero'); END;
CREATE TRIGGER postings_are_appended BEFORE INSERT ON postings
WHEN NEW.entry IS NOT (SELECT coalesce(max(number), 0) + 1 FROM entries)
  OR EXISTS (SELECT 1 FROM postings WHERE entry = NEW.entry AND line = NEW.line)
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER heads_are_appended BEFORE INSERT ON heads
WHEN EXISTS (SELECT 1 FROM heads WHERE id = NEW.id)
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entries_last BEFORE DELETE ON entries
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER postings_stay BEFORE UPDATE ON postings
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER postings_last BEFORE DELETE ON postings
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER heads_stay BEFORE UPDATE ON heads
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER heads_last BEFORE DELETE ON heads
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER accounts_last BEFORE DELETE ON accounts
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER accounts_keep_their_names BEFORE UPDATE OF id, name ON accounts
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
)sql";

constexpr char kEntryColumns[] = "number, key, kind, time, about, tokens, flops, memo, hash";

// Moves the texts out of the row.
absl::Status TakeEntry(SqlRow& row, RecordedEntry& out) {
  const std::optional<Sha256Digest> hash = DigestOf(row[8]);
  if (!hash.has_value()) {
    return absl::DataLossError(absl::StrCat("entry ", SqlInt(row[0]), " has no hash"));
  }
  const auto take = [](SqlValue& value, std::string& text) {
    text.clear();
    if (auto* bytes = std::get_if<std::string>(&value)) text.swap(*bytes);
  };
  out.number = static_cast<uint64_t>(SqlInt(row[0]));
  out.hash = *hash;
  take(row[1], out.entry.key);
  out.entry.kind = static_cast<EntryKind>(SqlInt(row[2]));
  out.entry.time_micros = SqlInt(row[3]);
  take(row[4], out.entry.about);
  out.entry.tokens = static_cast<uint64_t>(SqlInt(row[5]));
  out.entry.flops = static_cast<uint64_t>(SqlInt(row[6]));
  take(row[7], out.entry.memo);
  return absl::OkStatus();
}

}  // namespace

const std::vector<std::string>& LedgerMigrations() {
  static const auto* const migrations = new std::vector<std::string>{kSchema};
  return *migrations;
}

absl::StatusOr<EntryCursor> EntryCursor::Open(Transaction& sql) {
  ASSIGN_OR_RETURN(
      std::unique_ptr<Cursor> entries,
      sql.Read(absl::StrCat("SELECT ", kEntryColumns, " FROM entries ORDER BY number")));
  ASSIGN_OR_RETURN(std::unique_ptr<Cursor> postings,
                   sql.Read("SELECT entry, name, amount FROM postings "
                            "LEFT JOIN accounts ON accounts.id = account ORDER BY entry, line"));
  return EntryCursor(std::move(entries), std::move(postings));
}

absl::StatusOr<bool> EntryCursor::Next(RecordedEntry& entry) {
  ASSIGN_OR_RETURN(const bool found, entries_->Next(row_));
  if (!found) return false;
  RETURN_IF_ERROR(TakeEntry(row_, entry));
  RETURN_IF_ERROR(ReadPostings(entry));
  return true;
}

absl::Status EntryCursor::ReadPostings(RecordedEntry& entry) {
  entry.entry.postings.clear();
  if (!begun_) {
    ASSIGN_OR_RETURN(has_posting_, postings_->Next(posting_));
    begun_ = true;
  }
  const auto number = static_cast<int64_t>(entry.number);
  while (has_posting_ && SqlInt(posting_[0]) <= number) {
    if (SqlInt(posting_[0]) < number) {
      stray_ = true;
    } else if (entry.entry.postings.size() <= kMaxEntryPostings) {
      entry.entry.postings.push_back({SqlText(posting_[1]), SqlInt(posting_[2])});
    }
    ASSIGN_OR_RETURN(has_posting_, postings_->Next(posting_));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> EntryCursor::HasStrayPostings() {
  if (!begun_) {
    ASSIGN_OR_RETURN(has_posting_, postings_->Next(posting_));
    begun_ = true;
  }
  return stray_ || has_posting_;
}

absl::StatusOr<LedgerTip> ReadTip(Transaction& sql) {
  ASSIGN_OR_RETURN(const std::vector<SqlRow> rows,
                   sql.Query("SELECT number, hash FROM entries ORDER BY number DESC LIMIT 1"));
  if (rows.empty()) return LedgerTip{};
  const std::optional<Sha256Digest> hash = DigestOf(rows[0][1]);
  if (!hash.has_value()) return absl::DataLossError("the last entry has no hash");
  return LedgerTip{static_cast<uint64_t>(SqlInt(rows[0][0])), *hash};
}

absl::StatusOr<std::optional<RecordedEntry>> ReadEntry(Transaction& sql, uint64_t number) {
  ASSIGN_OR_RETURN(
      std::vector<SqlRow> rows,
      sql.Query(absl::StrCat("SELECT ", kEntryColumns, " FROM entries WHERE number = ?"),
                {static_cast<int64_t>(number)}));
  if (rows.empty()) return std::optional<RecordedEntry>();
  RecordedEntry entry;
  RETURN_IF_ERROR(TakeEntry(rows[0], entry));
  ASSIGN_OR_RETURN(const std::vector<SqlRow> postings,
                   sql.Query("SELECT name, amount FROM postings "
                             "JOIN accounts ON accounts.id = account "
                             "WHERE entry = ? ORDER BY line",
                             {static_cast<int64_t>(number)}));
  for (const SqlRow& row : postings) {
    entry.entry.postings.push_back({SqlText(row[0]), SqlInt(row[1])});
  }
  return std::optional<RecordedEntry>(std::move(entry));
}

absl::StatusOr<std::optional<uint64_t>> FindNumber(Transaction& sql, const std::string& key) {
  ASSIGN_OR_RETURN(const std::vector<SqlRow> rows,
                   sql.Query("SELECT number FROM entries WHERE key = ?", {key}));
  if (rows.empty()) return std::optional<uint64_t>();
  return std::optional<uint64_t>(static_cast<uint64_t>(SqlInt(rows[0][0])));
}

absl::StatusOr<Sha256Digest> ReadSubtree(Transaction& sql, uint64_t first, uint32_t level) {
  const auto from = static_cast<int64_t>(first);
  if (level > 0 && level % kKeptLevels == 0) {
    ASSIGN_OR_RETURN(const std::vector<SqlRow> rows,
                     sql.Query("SELECT hash FROM subtrees WHERE level = ? AND first = ?",
                               {int64_t{level}, from}));
    const std::optional<Sha256Digest> hash = rows.empty() ? std::nullopt : DigestOf(rows[0][0]);
    if (hash.has_value()) return *hash;
  }
  if (level > kKeptLevels) {
    // Of the kept roots below.
    const uint32_t below = level - 1;
    ASSIGN_OR_RETURN(const Sha256Digest left, ReadSubtree(sql, first, below));
    ASSIGN_OR_RETURN(const Sha256Digest right,
                     ReadSubtree(sql, first + (uint64_t{1} << below), below));
    return MerkleParent(left, right);
  }
  const int64_t count = int64_t{1} << level;
  ASSIGN_OR_RETURN(const std::vector<SqlRow> rows,
                   sql.Query("SELECT hash FROM entries WHERE number BETWEEN ? AND ? "
                             "ORDER BY number",
                             {from + 1, from + count}));
  MerkleTree tree;
  for (const SqlRow& row : rows) tree.Append(MerkleLeaf(DigestOf(row[0]).value_or(Sha256Digest{})));
  if (tree.size() != static_cast<uint64_t>(count)) {
    return absl::DataLossError(absl::StrCat("entries are missing behind ", first));
  }
  return tree.Root();
}

absl::StatusOr<SignedLedgerHead> HeadOf(const SqlRow& row, const Sha256Digest& ledger) {
  const std::optional<Sha256Digest> root = DigestOf(row[2]);
  const std::optional<Sha256Digest> chain = DigestOf(row[3]);
  const std::string key = SqlText(row[4]);
  const std::string signature = SqlText(row[5]);
  SignedLedgerHead head;
  if (!root.has_value() || !chain.has_value() || key.size() != head.key.size() ||
      signature.size() != head.signature.size()) {
    return absl::DataLossError(absl::StrCat("the head of ", SqlInt(row[0]), " entries is damaged"));
  }
  head.head = {ledger, static_cast<uint64_t>(SqlInt(row[0])), *root, *chain, SqlInt(row[1])};
  std::copy(key.begin(), key.end(), head.key.begin());
  std::copy(signature.begin(), signature.end(), head.signature.begin());
  return head;
}

std::optional<Sha256Digest> DigestOf(const SqlValue& value) {
  const auto* bytes = std::get_if<std::string>(&value);
  Sha256Digest digest;
  if (bytes == nullptr || bytes->size() != digest.size()) return std::nullopt;
  std::copy(bytes->begin(), bytes->end(), digest.begin());
  return digest;
}

std::string BytesOf(const Sha256Digest& digest) {
  return std::string(digest.begin(), digest.end());
}

}  // namespace efedllm
