#include "wire/ledger_wire.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "wire/field_checks.h"

namespace efedllm {
namespace {

constexpr size_t kMaxRefusalBytes = 500;

template <class Array>
std::string BytesOf(const Array& array) {
  return std::string(array.begin(), array.end());
}

template <class Array>
absl::Status Take(const std::string& bytes, absl::string_view field, Array& array) {
  if (bytes.size() != array.size()) {
    return WrongField(field, absl::StrCat("has ", bytes.size(), " bytes, not ", array.size()));
  }
  std::copy(bytes.begin(), bytes.end(), array.begin());
  return absl::OkStatus();
}

v1::LedgerHead HeadToWire(const SignedLedgerHead& head) {
  v1::LedgerHead message;
  message.set_ledger(BytesOf(head.head.ledger));
  message.set_size(head.head.size);
  message.set_root(BytesOf(head.head.root));
  message.set_chain(BytesOf(head.head.chain));
  message.set_time_micros(head.head.time_micros);
  message.set_key(BytesOf(head.key));
  message.set_signature(BytesOf(head.signature));
  return message;
}

absl::StatusOr<SignedLedgerHead> HeadFromWire(const v1::LedgerHead& message) {
  SignedLedgerHead head;
  RETURN_IF_ERROR(Take(message.ledger(), "ledger", head.head.ledger));
  RETURN_IF_ERROR(CheckRange("size", message.size(), 1, kMaxCount));
  head.head.size = message.size();
  RETURN_IF_ERROR(Take(message.root(), "root", head.head.root));
  RETURN_IF_ERROR(Take(message.chain(), "chain", head.head.chain));
  head.head.time_micros = message.time_micros();
  RETURN_IF_ERROR(Take(message.key(), "key", head.key));
  RETURN_IF_ERROR(Take(message.signature(), "signature", head.signature));
  return head;
}

}  // namespace

v1::LedgerHeadOffer ToWire(const LedgerHeadOffer& offer) {
  v1::LedgerHeadOffer message;
  *message.mutable_head() = HeadToWire(offer.head);
  for (const Sha256Digest& hash : offer.proof) message.add_proof(BytesOf(hash));
  return message;
}

v1::HeldLedgerHead ToWire(const HeldLedgerHead& held) {
  v1::HeldLedgerHead message;
  if (held.head) *message.mutable_head() = HeadToWire(*held.head);
  message.set_refusal(Printable(held.refusal, kMaxRefusalBytes));
  return message;
}

absl::StatusOr<LedgerHeadOffer> FromWire(const v1::LedgerHeadOffer& message) {
  LedgerHeadOffer offer;
  ASSIGN_OR_RETURN(offer.head, HeadFromWire(message.head()));
  const auto hashes = static_cast<size_t>(message.proof_size());
  RETURN_IF_ERROR(CheckRange("the length of proof", hashes, 0, kMaxMerkleProof));
  offer.proof.resize(hashes);
  for (size_t i = 0; i < hashes; ++i) {
    RETURN_IF_ERROR(Take(message.proof(static_cast<int>(i)), "proof", offer.proof[i]));
  }
  return offer;
}

absl::StatusOr<HeldLedgerHead> FromWire(const v1::HeldLedgerHead& message) {
  HeldLedgerHead held;
  if (message.has_head()) {
    ASSIGN_OR_RETURN(held.head, HeadFromWire(message.head()));
  }
  held.refusal = Printable(message.refusal(), kMaxRefusalBytes);
  return held;
}

}  // namespace efedllm
