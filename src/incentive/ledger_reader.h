// Reading a ledger: beside its writer, or from a copy.
#ifndef EFEDLLM_INCENTIVE_LEDGER_READER_H_
#define EFEDLLM_INCENTIVE_LEDGER_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cluster/ledger_head.h"
#include "cluster/merkle.h"
#include "incentive/ledger_entry.h"
#include "store/database.h"

namespace efedllm {

struct AccountBalance {
  std::string account;
  Micros balance = 0;
};

// Which of the latest entries.
struct EntryFilter {
  size_t limit = 20;
  std::optional<EntryKind> kind;
  std::string account;  // with a posting on it; empty: of any
};

// What entries put into escrow, and what they took out of it.
struct EscrowFlows {
  uint64_t entries = 0;  // up to this number
  Micros pending = 0, posted = 0, voided = 0;
};

// Thread-safe; one call at a time. Each answer is of one moment.
class LedgerReader {
 public:
  // NotFound; FailedPrecondition: a newer eFedLLM wrote it, or it is no ledger; DataLoss.
  static absl::StatusOr<std::unique_ptr<LedgerReader>> Open(const std::string& path);

  absl::StatusOr<uint64_t> Size();
  // Of accounts whose names begin with prefix, by name.
  absl::StatusOr<std::vector<AccountBalance>> Balances(const std::string& prefix = "");
  // 0 for an account that was never mentioned.
  absl::StatusOr<Micros> Balance(const std::string& account);
  // Of the entries with higher numbers than this.
  absl::StatusOr<EscrowFlows> FlowsAfter(uint64_t number);
  // What is neither posted nor voided, oldest first; node: only its.
  absl::StatusOr<std::vector<PendingWork>> Pending(std::optional<NodeId> node = std::nullopt);

  // nullopt: no entry has this key.
  absl::StatusOr<std::optional<RecordedEntry>> Find(const std::string& key);
  // The newest first.
  absl::StatusOr<std::vector<RecordedEntry>> Latest(const EntryFilter& filter);
  // All with a posting on one of the accounts, oldest first.
  absl::StatusOr<std::vector<RecordedEntry>> EntriesOf(absl::Span<const std::string> accounts);

  // What the first `size` entries hash to; size: at most Size(). InvalidArgument: more.
  absl::StatusOr<LedgerHead> Head(uint64_t size);
  // The newest signed one. nullopt: none was.
  absl::StatusOr<std::optional<SignedLedgerHead>> LatestHead();
  // That the first new_size entries begin with the first old_size; that entry `number` is among the
  // first `size`. InvalidArgument: they are not so many.
  absl::StatusOr<MerkleProof> ProveConsistency(uint64_t old_size, uint64_t new_size);
  absl::StatusOr<MerkleProof> ProveInclusion(uint64_t number, uint64_t size);

  // Copies the ledger as it is now to a new file, which is there in full or not at all, while the
  // writer goes on. AlreadyExists.
  absl::Status Backup(const std::string& path) { return database_->Backup(path); }

 private:
  explicit LedgerReader(std::unique_ptr<Database> database) : database_(std::move(database)) {}
  absl::StatusOr<std::vector<RecordedEntry>> EntriesBy(const std::string& sql,
                                                       const SqlRow& values);

  const std::unique_ptr<Database> database_;
};

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_LEDGER_READER_H_
