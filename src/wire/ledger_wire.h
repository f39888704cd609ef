// Heads of the ledger between coordinator and workers <-> domain types, every field checked.
#ifndef EFEDLLM_WIRE_LEDGER_WIRE_H_
#define EFEDLLM_WIRE_LEDGER_WIRE_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "cluster/ledger_head.h"
#include "cluster/merkle.h"
#include "efedllm/cluster.pb.h"

namespace efedllm {

// A head that a worker is to keep.
struct LedgerHeadOffer {
  SignedLedgerHead head;
  MerkleProof proof;  // from the head that the worker said it keeps

  friend bool operator==(const LedgerHeadOffer&, const LedgerHeadOffer&) = default;
};

// What a worker keeps.
struct HeldLedgerHead {
  std::optional<SignedLedgerHead> head;  // nullopt: none
  std::string refusal;  // why the offered one does not continue it; printable; empty: it does

  friend bool operator==(const HeldLedgerHead&, const HeldLedgerHead&) = default;
};

v1::LedgerHeadOffer ToWire(const LedgerHeadOffer& offer);
v1::HeldLedgerHead ToWire(const HeldLedgerHead& held);
// InvalidArgument names the field. Checked: sizes, at least one entry, the length of the proof.
// Signatures are the caller's to check.
absl::StatusOr<LedgerHeadOffer> FromWire(const v1::LedgerHeadOffer& message);
absl::StatusOr<HeldLedgerHead> FromWire(const v1::HeldLedgerHead& message);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_LEDGER_WIRE_H_
