// The ledger's tables, and how entries are read from them. Behind ledger.h, ledger_reader.h and
// ledger_verify.h, which have the contracts.
//
//   entries    what was said, with its hash             append-only
//   postings   of entries                               append-only
//   heads      that were signed                         append-only
//   accounts   names, and balances                      derived from postings
//   open_work  pending entries without post or void     derived from entries
//   subtrees   roots of 256^k entries                   derived from entries' hashes
#ifndef EFEDLLM_INCENTIVE_LEDGER_TABLES_H_
#define EFEDLLM_INCENTIVE_LEDGER_TABLES_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/ledger_head.h"
#include "cluster/merkle.h"
#include "incentive/ledger_entry.h"
#include "incentive/ledger_history.h"
#include "store/database.h"

namespace efedllm {

// For Database::Open.
const std::vector<std::string>& LedgerMigrations();
inline constexpr DatabaseOptions kLedgerOptions = {.sealed = true};

// Entries, lowest number first, with their postings.
class EntryCursor {
 public:
  static absl::StatusOr<EntryCursor> Open(Transaction& sql);
  // False: there is no other. DataLoss: a row that can be none of ours.
  absl::StatusOr<bool> Next(RecordedEntry& entry);
  // Whether postings were passed over that belong to no entry; after the last entry.
  absl::StatusOr<bool> HasStrayPostings();

 private:
  EntryCursor(std::unique_ptr<Cursor> entries, std::unique_ptr<Cursor> postings)
      : entries_(std::move(entries)), postings_(std::move(postings)) {}
  absl::Status ReadPostings(RecordedEntry& entry);

  std::unique_ptr<Cursor> entries_, postings_;
  SqlRow row_, posting_;
  bool has_posting_ = false, begun_ = false, stray_ = false;
};

struct LedgerTip {
  uint64_t size = 0;
  Sha256Digest chain = {};  // the last entry's hash; zeros where there is none
};
absl::StatusOr<LedgerTip> ReadTip(Transaction& sql);

// nullopt: there is none.
absl::StatusOr<std::optional<RecordedEntry>> ReadEntry(Transaction& sql, uint64_t number);
absl::StatusOr<std::optional<uint64_t>> FindNumber(Transaction& sql, const std::string& key);

// The root of entries' leaves, numbers [first + 1, first + 2^level]; they are there.
absl::StatusOr<Sha256Digest> ReadSubtree(Transaction& sql, uint64_t first, uint32_t level);
// A head's row: size, time, root, chain, key, signature; ledger is the first entry's hash.
absl::StatusOr<SignedLedgerHead> HeadOf(const SqlRow& row, const Sha256Digest& ledger);
inline constexpr char kHeadColumns[] = "size, time, root, chain, key, signature";

// A hash or a key in a column; nullopt: it has another length.
std::optional<Sha256Digest> DigestOf(const SqlValue& value);
std::string BytesOf(const Sha256Digest& digest);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_LEDGER_TABLES_H_
