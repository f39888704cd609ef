#include "incentive/ledger_verify.h"

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "incentive/ledger_history.h"
#include "incentive/ledger_tables.h"
#include "store/database.h"

namespace efedllm {
namespace {

constexpr size_t kMaxShownKey = 80;

std::string Printable(absl::string_view text) {
  std::string out(text.substr(0, kMaxShownKey));
  for (char& c : out) c = absl::ascii_isgraph(static_cast<unsigned char>(c)) ? c : '?';
  return out;
}

// Goes through a file's tables; what is wrong first is in the verification's fault.
class Verifier {
 public:
  Verifier(Transaction& sql, const VerifyOptions& options, LedgerVerification& result)
      : sql_(sql), options_(options), result_(result) {}

  // Not OK: SQLite can't read on; then nothing worse was found before.
  absl::Status Run() {
    RETURN_IF_ERROR(CheckTables());
    RETURN_IF_ERROR(LoadHeads());
    RETURN_IF_ERROR(CheckEntries());
    Summarize();
    if (Bad()) return absl::OkStatus();
    for (const auto check : {&Verifier::CheckHeadsLeft, &Verifier::CheckBalances,
                             &Verifier::CheckOpenWork, &Verifier::CheckSubtrees}) {
      RETURN_IF_ERROR((this->*check)());
      if (Bad()) return absl::OkStatus();
    }
    return absl::OkStatus();
  }

 private:
  bool Bad() const { return result_.fault.has_value(); }

  void BadEntry(uint64_t number, absl::string_view key, absl::string_view what) {
    if (!Bad()) result_.fault = {number, Printable(key), std::string(what)};
  }
  void BadElsewhere(absl::string_view what) {
    if (!Bad()) result_.fault = {std::nullopt, "", std::string(what)};
  }

  // The file brings its own triggers and indexes: they must be the ones that this program makes.
  absl::Status CheckTables() {
    constexpr char kTables[] = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2";
    constexpr char kVersion[] = "PRAGMA user_version";
    ASSIGN_OR_RETURN(const std::unique_ptr<Database> fresh, Database::InMemory(LedgerMigrations()));
    std::vector<SqlRow> tables, version;
    RETURN_IF_ERROR(fresh->Transact([&](Transaction& sql) -> absl::Status {
      ASSIGN_OR_RETURN(tables, sql.Query(kTables));
      ASSIGN_OR_RETURN(version, sql.Query(kVersion));
      return absl::OkStatus();
    }));
    ASSIGN_OR_RETURN(const std::vector<SqlRow> version_here, sql_.Query(kVersion));
    ASSIGN_OR_RETURN(const std::vector<SqlRow> tables_here, sql_.Query(kTables));
    if (version_here != version) return absl::DataLossError("it is not a ledger of this version");
    if (tables_here != tables) {
      return absl::DataLossError("its tables and triggers are not a ledger's");
    }
    return absl::OkStatus();
  }

  // All heads that must fit, by size.
  absl::Status LoadHeads() {
    ASSIGN_OR_RETURN(const std::optional<RecordedEntry> first, ReadEntry(sql_, 1));
    const Sha256Digest ledger = first.has_value() ? first->hash : Sha256Digest{};
    ASSIGN_OR_RETURN(const std::unique_ptr<Cursor> rows,
                     sql_.Read(absl::StrCat("SELECT ", kHeadColumns, " FROM heads ORDER BY id")));
    for (SqlRow row;;) {
      ASSIGN_OR_RETURN(const bool found, rows->Next(row));
      if (!found) break;
      ASSIGN_OR_RETURN(SignedLedgerHead head, HeadOf(row, ledger));
      result_.key = head.key;
      heads_.push_back({std::move(head), "in the file"});
    }
    result_.signed_heads = heads_.size();
    result_.kept_heads = options_.heads.size();
    for (const SignedLedgerHead& head : options_.heads) heads_.push_back({head, "kept elsewhere"});
    std::stable_sort(heads_.begin(), heads_.end(), [](const KnownHead& a, const KnownHead& b) {
      return a.head.head.size < b.head.head.size;
    });
    return absl::OkStatus();
  }

  absl::Status CheckEntries() {
    ASSIGN_OR_RETURN(EntryCursor cursor, EntryCursor::Open(sql_));
    for (RecordedEntry entry;;) {
      const absl::StatusOr<bool> found = cursor.Next(entry);
      if (!found.ok()) {
        BadEntry(history_.size() + 1, "", found.status().message());
        return absl::OkStatus();
      }
      if (!*found) break;
      if (const absl::Status status = history_.Add(entry); !status.ok()) {
        BadEntry(history_.size() + 1, entry.entry.key, status.message());
        return absl::OkStatus();
      }
      CheckHeadsHere(entry.entry.key);
      if (Bad()) return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const bool stray, cursor.HasStrayPostings());
    if (stray) BadElsewhere("there are postings that belong to no entry");
    if (history_.size() == 0) BadElsewhere("it has no entries: a ledger begins with its opening");
    return absl::OkStatus();
  }

  void CheckHeadsHere(absl::string_view key) {
    const uint64_t size = history_.size();
    for (; next_head_ < heads_.size() && heads_[next_head_].head.head.size <= size; ++next_head_) {
      const KnownHead& known = heads_[next_head_];
      const LedgerHead& head = known.head.head;
      const std::string name = absl::StrCat("the head of ", head.size, " entries ", known.where);
      LedgerHead expected = history_.Head();
      expected.time_micros = head.time_micros;
      if (!IsSigned(known.head) || options_.signer.value_or(known.head.key) != known.head.key) {
        return BadElsewhere(absl::StrCat(name, " is not signed by the coordinator"));
      }
      if (head.ledger != expected.ledger) {
        return BadElsewhere(absl::StrCat(name, " is of another ledger"));
      }
      if (head != expected) {
        return BadEntry(size, key,
                        absl::StrCat("what the coordinator signed up to here, ", name,
                                     ", was something else: this ledger is a fork"));
      }
    }
  }

  absl::Status CheckHeadsLeft() {
    if (next_head_ < heads_.size()) {
      const KnownHead& known = heads_[next_head_];
      BadElsewhere(absl::StrCat("the head of ", known.head.head.size, " entries ", known.where,
                                " is of a longer ledger: entries behind ", history_.size(),
                                " are missing"));
    }
    return absl::OkStatus();
  }

  absl::Status CheckBalances() {
    ASSIGN_OR_RETURN(const std::unique_ptr<Cursor> rows,
                     sql_.Read("SELECT name, balance FROM accounts"));
    size_t count = 0;
    for (SqlRow row;; ++count) {
      ASSIGN_OR_RETURN(const bool found, rows->Next(row));
      if (!found) break;
      const auto expected = history_.balances().find(SqlText(row[0]));
      if (expected == history_.balances().end() || expected->second != SqlInt(row[1])) {
        BadElsewhere(absl::StrCat("the balance kept for ", Printable(SqlText(row[0])),
                                  " is not the sum of its postings"));
        return absl::OkStatus();
      }
    }
    if (count != history_.balances().size()) BadElsewhere("the balance of an account is missing");
    return absl::OkStatus();
  }

  absl::Status CheckOpenWork() {
    std::vector<int64_t> expected;
    for (const auto& [key, open] : history_.open_work()) {
      expected.push_back(static_cast<int64_t>(open.number));
    }
    std::sort(expected.begin(), expected.end());
    ASSIGN_OR_RETURN(const std::unique_ptr<Cursor> rows,
                     sql_.Read("SELECT entry FROM open_work ORDER BY entry"));
    size_t count = 0;
    bool same = true;
    for (SqlRow row; same; ++count) {
      ASSIGN_OR_RETURN(const bool found, rows->Next(row));
      if (!found) break;
      same = count < expected.size() && expected[count] == SqlInt(row[0]);
    }
    if (!same || count != expected.size()) {
      BadElsewhere("the list of open work is not what the entries leave open");
    }
    return absl::OkStatus();
  }

  absl::Status CheckSubtrees() {
    const std::vector<KeptSubtree>& expected = history_.subtrees();
    absl::flat_hash_map<std::pair<uint32_t, uint64_t>, Sha256Digest> roots;
    for (const KeptSubtree& kept : expected) roots[{kept.level, kept.first}] = kept.root;
    ASSIGN_OR_RETURN(const std::unique_ptr<Cursor> rows,
                     sql_.Read("SELECT level, first, hash FROM subtrees"));
    size_t count = 0;
    bool same = true;
    for (SqlRow row; same; ++count) {
      ASSIGN_OR_RETURN(const bool found, rows->Next(row));
      if (!found) break;
      const auto root = roots.find(
          {static_cast<uint32_t>(SqlInt(row[0])), static_cast<uint64_t>(SqlInt(row[1]))});
      same = root != roots.end() && DigestOf(row[2]) == root->second;
    }
    if (!same || count != roots.size()) {
      BadElsewhere("the kept roots of subtrees are not those of the entries");
    }
    return absl::OkStatus();
  }

  void Summarize() {
    result_.head = history_.Head();
    result_.open_work = history_.open_work().size();
    for (const auto& [account, balance] : history_.balances()) {
      if (account == kIssuerAccount) {
        result_.issued -= balance;
      } else if (account == kPenaltyAccount) {
        result_.penalties += balance;
      } else if (absl::StartsWith(account, "escrow:")) {
        result_.in_escrow += balance;
      } else if (absl::StartsWith(account, "node:")) {
        result_.with_nodes += balance;
      } else if (absl::StartsWith(account, "owner:")) {
        result_.with_owners += balance;
      } else {
        result_.with_keys += balance;
      }
    }
  }

  struct KnownHead {
    SignedLedgerHead head;
    absl::string_view where;
  };

  Transaction& sql_;
  const VerifyOptions& options_;
  LedgerVerification& result_;
  LedgerHistory history_;
  std::vector<KnownHead> heads_;
  size_t next_head_ = 0;
};

// What the tables say. sealed: damaged pages can't be read.
void VerifyTables(const std::string& path, bool sealed, const VerifyOptions& options,
                  LedgerVerification& result) {
  const absl::Status status = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::unique_ptr<Database> database,
                     Database::OpenForReading(path, {.sealed = sealed}));
    return database->Transact(
        [&](Transaction& sql) { return Verifier(sql, options, result).Run(); });
  }();
  if (!status.ok() && !result.fault.has_value()) {
    result.fault = {std::nullopt, "", std::string(status.message())};
  }
}

}  // namespace

absl::StatusOr<LedgerVerification> VerifyLedger(const std::string& path,
                                                const VerifyOptions& options) {
  LedgerVerification result;
  ASSIGN_OR_RETURN(result.seals, CheckSeals(path));
  result.all_bytes_checked = access((path + "-wal").c_str(), F_OK) != 0;
  if (!result.all_bytes_checked) {
    VerifyTables(path, /*sealed=*/true, options, result);
    return result;
  }
  // To name an entry, damaged pages are read too.
  VerifyTables(path, /*sealed=*/false, options, result);
  if (result.seals.bad_page.has_value()) {
    const uint64_t page = *result.seals.bad_page;
    const std::string where =
        absl::StrCat("bytes ", (page - 1) * kSealedPageBytes, " to ", page * kSealedPageBytes - 1,
                     " of the file (page ", page, ") were changed");
    if (!result.fault.has_value()) {
      result.fault = {std::nullopt, "",
                      absl::StrCat(where,
                                   "; every entry is as it was written, the change is in "
                                   "an index or in bytes that hold nothing")};
    } else {
      result.fault->what = absl::StrCat(where, ": ", result.fault->what);
    }
  }
  return result;
}

}  // namespace efedllm
