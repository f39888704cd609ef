// The heads of the coordinator's ledger that this worker keeps, so that history can't be written
// anew without its noticing, and its files prove it to others.
#ifndef EFEDLLM_WORKER_LEDGER_HEADS_H_
#define EFEDLLM_WORKER_LEDGER_HEADS_H_

#include <cstddef>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cluster/ledger_head.h"
#include "common/signing.h"
#include "wire/ledger_wire.h"

namespace efedllm {

// One JSON object a line, as `efedllm-ctl ledger verify --heads` reads them:
//
//   <key>.jsonl         heads by this coordinator's key, each proven to continue the one before;
//                       moved aside (".1.jsonl") when it is full
//   <key>.forks.jsonl   pairs: one that was kept, and one that does not continue it
//
// Not thread-safe.
class HeldLedgerHeads {
 public:
  // Made with the first head. most_bytes: of a file, before it is moved aside.
  explicit HeldLedgerHeads(std::string folder, size_t most_bytes = size_t{8} << 20)
      : folder_(std::move(folder)), most_bytes_(most_bytes) {}

  // By this key; nullopt: none. DataLoss: there were some, and what is left can't be read.
  absl::StatusOr<std::optional<SignedLedgerHead>> Newest(const PublicKey& coordinator);

  // OK: it is the newest one now and on the disk, or was already. InvalidArgument: the coordinator
  // did not sign it; FailedPrecondition: it does not continue the newest, and both are kept as
  // proof, see WhatToDo; others: the disk.
  absl::Status Take(const PublicKey& coordinator, const LedgerHeadOffer& offer);
  // About a head that does not continue the newest: sentences for the node's owner.
  std::string WhatToDo(const PublicKey& coordinator) const;

 private:
  std::string PathOf(const PublicKey& coordinator, absl::string_view ending) const;
  absl::Status Append(const PublicKey& coordinator, const SignedLedgerHead& head);
  absl::Status KeepFork(const PublicKey& coordinator, const SignedLedgerHead& kept,
                        const SignedLedgerHead& offered) const;

  const std::string folder_;
  const size_t most_bytes_;
  std::map<PublicKey, SignedLedgerHead> newest_;  // as far as files were read
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_LEDGER_HEADS_H_
