#include "incentive/ledger_reader.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "incentive/ledger_tables.h"

namespace efedllm {
namespace {

absl::Status CheckIsLedger(Transaction& sql, const std::string& path) {
  ASSIGN_OR_RETURN(const std::vector<SqlRow> rows, sql.Query("PRAGMA user_version"));
  const int64_t version = rows.empty() ? 0 : SqlInt(rows[0][0]);
  const auto known = static_cast<int64_t>(LedgerMigrations().size());
  if (version == known) return absl::OkStatus();
  return absl::FailedPreconditionError(
      version > known ? absl::StrCat(path, " was written by a newer eFedLLM: update this one")
                      : absl::StrCat(path, " is not a ledger"));
}

absl::Status CheckSize(Transaction& sql, uint64_t size) {
  ASSIGN_OR_RETURN(const LedgerTip tip, ReadTip(sql));
  if (size <= tip.size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the ledger has ", tip.size, " entries, not ", size));
}

absl::StatusOr<Sha256Digest> HashOf(Transaction& sql, uint64_t number) {
  ASSIGN_OR_RETURN(
      const std::vector<SqlRow> rows,
      sql.Query("SELECT hash FROM entries WHERE number = ?", {static_cast<int64_t>(number)}));
  const std::optional<Sha256Digest> hash = rows.empty() ? std::nullopt : DigestOf(rows[0][0]);
  if (!hash.has_value()) return absl::DataLossError(absl::StrCat("entry ", number, " is missing"));
  return *hash;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LedgerReader>> LedgerReader::Open(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database,
                   Database::OpenForReading(path, kLedgerOptions));
  RETURN_IF_ERROR(database->Transact([&](Transaction& sql) { return CheckIsLedger(sql, path); }));
  return std::unique_ptr<LedgerReader>(new LedgerReader(std::move(database)));
}

absl::StatusOr<uint64_t> LedgerReader::Size() {
  uint64_t size = 0;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(const LedgerTip tip, ReadTip(sql));
    size = tip.size;
    return absl::OkStatus();
  }));
  return size;
}

absl::StatusOr<std::vector<AccountBalance>> LedgerReader::Balances(const std::string& prefix) {
  std::vector<AccountBalance> balances;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SqlRow> rows,
                     sql.Query("SELECT name, balance FROM accounts "
                               "WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name",
                               {prefix}));
    balances.reserve(rows.size());
    for (const SqlRow& row : rows) balances.push_back({SqlText(row[0]), SqlInt(row[1])});
    return absl::OkStatus();
  }));
  return balances;
}

absl::StatusOr<Micros> LedgerReader::Balance(const std::string& account) {
  Micros balance = 0;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SqlRow> rows,
                     sql.Query("SELECT balance FROM accounts WHERE name = ?", {account}));
    if (!rows.empty()) balance = SqlInt(rows[0][0]);
    return absl::OkStatus();
  }));
  return balance;
}

absl::StatusOr<std::vector<PendingWork>> LedgerReader::Pending(std::optional<NodeId> node) {
  std::vector<PendingWork> open;
  const std::string sql = node.has_value()
                              ? "SELECT open_work.entry FROM open_work JOIN postings USING (entry) "
                                "JOIN accounts ON accounts.id = account WHERE name = ? ORDER BY 1"
                              : "SELECT entry FROM open_work WHERE ? = '' ORDER BY 1";
  ASSIGN_OR_RETURN(const std::vector<RecordedEntry> entries,
                   EntriesBy(sql, {node.has_value() ? EscrowAccount(*node) : std::string()}));
  open.reserve(entries.size());
  for (const RecordedEntry& entry : entries) open.push_back(WorkOf(entry.entry));
  return open;
}

absl::StatusOr<std::optional<RecordedEntry>> LedgerReader::Find(const std::string& key) {
  std::optional<RecordedEntry> found;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(const std::optional<uint64_t> number, FindNumber(sql, key));
    if (!number.has_value()) return absl::OkStatus();
    ASSIGN_OR_RETURN(found, ReadEntry(sql, *number));
    return absl::OkStatus();
  }));
  return found;
}

// sql: gives numbers of entries.
absl::StatusOr<std::vector<RecordedEntry>> LedgerReader::EntriesBy(const std::string& sql,
                                                                   const SqlRow& values) {
  std::vector<RecordedEntry> entries;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& transaction) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SqlRow> numbers, transaction.Query(sql, values));
    entries.reserve(numbers.size());
    for (const SqlRow& row : numbers) {
      ASSIGN_OR_RETURN(std::optional<RecordedEntry> entry,
                       ReadEntry(transaction, static_cast<uint64_t>(SqlInt(row[0]))));
      if (!entry.has_value()) return absl::DataLossError("an index names an entry that is missing");
      entries.push_back(*std::move(entry));
    }
    return absl::OkStatus();
  }));
  return entries;
}

absl::StatusOr<std::vector<RecordedEntry>> LedgerReader::Latest(const EntryFilter& filter) {
  std::string sql = "SELECT number FROM entries WHERE number > 0";
  SqlRow values;
  if (filter.kind.has_value()) {
    // The index that is for these has to be named by its condition.
    absl::StrAppend(&sql, *filter.kind >= EntryKind::kOwner ? " AND kind >= 8" : "",
                    " AND kind = ?");
    values.push_back(static_cast<int64_t>(*filter.kind));
  }
  if (!filter.account.empty()) {
    absl::StrAppend(&sql,
                    " AND number IN (SELECT entry FROM postings JOIN accounts "
                    "ON accounts.id = account WHERE name = ?)");
    values.push_back(filter.account);
  }
  absl::StrAppend(&sql, " ORDER BY number DESC LIMIT ?");
  values.push_back(
      static_cast<int64_t>(std::min<size_t>(filter.limit, std::numeric_limits<int64_t>::max())));
  return EntriesBy(sql, values);
}

absl::StatusOr<std::vector<RecordedEntry>> LedgerReader::EntriesOf(
    absl::Span<const std::string> accounts) {
  const nlohmann::json names = std::vector<std::string>(accounts.begin(), accounts.end());
  return EntriesBy(
      "SELECT DISTINCT entry FROM postings JOIN accounts ON accounts.id = account "
      "WHERE name IN (SELECT value FROM json_each(?)) ORDER BY entry",
      {names.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)});
}

absl::StatusOr<EscrowFlows> LedgerReader::FlowsAfter(uint64_t number) {
  EscrowFlows flows;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(const LedgerTip tip, ReadTip(sql));
    flows.entries = tip.size;
    ASSIGN_OR_RETURN(
        const std::vector<SqlRow> rows,
        sql.Query("SELECT kind, sum(abs(amount)) FROM entries JOIN postings ON entry = number "
                  "JOIN accounts ON accounts.id = account "
                  "WHERE number > ? AND name GLOB 'escrow:*' GROUP BY kind",
                  {static_cast<int64_t>(number)}));
    for (const SqlRow& row : rows) {
      const Micros sum = SqlInt(row[1]);
      switch (static_cast<EntryKind>(SqlInt(row[0]))) {
        case EntryKind::kPending:
          flows.pending = sum;
          break;
        case EntryKind::kPost:
          flows.posted = sum;
          break;
        case EntryKind::kVoid:
          flows.voided = sum;
          break;
        default:
          break;
      }
    }
    return absl::OkStatus();
  }));
  return flows;
}

absl::StatusOr<LedgerHead> LedgerReader::Head(uint64_t size) {
  LedgerHead head{.size = size};
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    RETURN_IF_ERROR(CheckSize(sql, size));
    ASSIGN_OR_RETURN(head.root, MerkleRoot(size, [&](uint64_t first, uint32_t level) {
                       return ReadSubtree(sql, first, level);
                     }));
    if (size == 0) return absl::OkStatus();
    ASSIGN_OR_RETURN(head.ledger, HashOf(sql, 1));
    ASSIGN_OR_RETURN(head.chain, HashOf(sql, size));
    return absl::OkStatus();
  }));
  return head;
}

absl::StatusOr<std::optional<SignedLedgerHead>> LedgerReader::LatestHead() {
  std::optional<SignedLedgerHead> head;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(
        const std::vector<SqlRow> rows,
        sql.Query(absl::StrCat("SELECT ", kHeadColumns, " FROM heads ORDER BY id DESC LIMIT 1")));
    if (rows.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const Sha256Digest ledger, HashOf(sql, 1));
    ASSIGN_OR_RETURN(head, HeadOf(rows[0], ledger));
    return absl::OkStatus();
  }));
  return head;
}

absl::StatusOr<MerkleProof> LedgerReader::ProveConsistency(uint64_t old_size, uint64_t new_size) {
  MerkleProof proof;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    RETURN_IF_ERROR(CheckSize(sql, new_size));
    if (old_size > new_size) {
      return absl::InvalidArgumentError("a ledger does not begin with a longer one");
    }
    ASSIGN_OR_RETURN(proof,
                     ConsistencyProof(old_size, new_size, [&](uint64_t first, uint32_t level) {
                       return ReadSubtree(sql, first, level);
                     }));
    return absl::OkStatus();
  }));
  return proof;
}

absl::StatusOr<MerkleProof> LedgerReader::ProveInclusion(uint64_t number, uint64_t size) {
  MerkleProof proof;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    RETURN_IF_ERROR(CheckSize(sql, size));
    if (number < 1 || number > size) {
      return absl::InvalidArgumentError(
          absl::StrCat("entry ", number, " is not among the first ", size));
    }
    ASSIGN_OR_RETURN(proof, InclusionProof(number - 1, size, [&](uint64_t first, uint32_t level) {
                       return ReadSubtree(sql, first, level);
                     }));
    return absl::OkStatus();
  }));
  return proof;
}

}  // namespace efedllm
