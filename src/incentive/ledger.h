// The ledger: what nodes did and what they get for it, in a file that nobody can change unseen.
// Double entry, append-only, every entry under a key that makes a retry harmless, each chained to
// the one before by hash, all under a Merkle tree whose heads are signed. docs/ledger.md.
#ifndef EFEDLLM_INCENTIVE_LEDGER_H_
#define EFEDLLM_INCENTIVE_LEDGER_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cluster/ledger_head.h"
#include "common/signing.h"
#include "incentive/ledger_entry.h"
#include "incentive/ledger_reader.h"
#include "store/database.h"

namespace efedllm {

// <state_dir>/ledger.db.
std::string LedgerPath(const std::string& state_dir);

struct AppendResult {
  size_t added = 0;
  size_t already_there = 0;  // said before, with the same key and content
};

// The one writer of a file. Thread-safe. What a call wrote lasts when it returns, through kill -9
// and power cuts; what fails has written nothing. Errors of all calls: ResourceExhausted: the disk
// is full, try again when it is not; DataLoss: the file is damaged, see `efedllm-ctl ledger
// verify`.
class Ledger {
 public:
  // Opens the file, or makes it with its first entry. now: when that is. FailedPrecondition: a
  // newer eFedLLM wrote it, or it is no ledger.
  static absl::StatusOr<std::unique_ptr<Ledger>> Open(const std::string& path, absl::Time now);

  // All of the entries or none. The many of a call cost one write to the disk. Their postings are
  // put in order here; their times are the caller's. InvalidArgument: an entry is not sound by
  // itself; AlreadyExists: its key was used for something else; NotFound: a post or void of work
  // that was never there; FailedPrecondition: of work that is resolved, or an account that must not
  // would become negative. The message names the entry.
  absl::StatusOr<AppendResult> Append(absl::Span<const Entry> entries);

  // The work of these pending entries is proven: their pay goes from escrow to the nodes.
  absl::StatusOr<AppendResult> Post(absl::Span<const std::string> pending_keys, absl::Time now);
  // The work is disproven: its pay goes back, and the node pays the penalty (0: none). memo: why.
  absl::StatusOr<AppendResult> Void(const std::string& pending_key, Micros penalty,
                                    const std::string& memo, absl::Time now);

  // Commits to all entries so far, and keeps the head. Where the last head kept is of the same
  // entries and key, it is that one.
  absl::StatusOr<SignedLedgerHead> SignHead(const SigningKey& key, absl::Time now);

  // Reads on a connection of its own: never waits for this object's writes, nor they for it.
  LedgerReader& reader() const { return *reader_; }

 private:
  Ledger(std::unique_ptr<Database> database, std::unique_ptr<LedgerReader> reader)
      : database_(std::move(database)), reader_(std::move(reader)) {}

  const std::unique_ptr<Database> database_;
  const std::unique_ptr<LedgerReader> reader_;
};

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_LEDGER_H_
