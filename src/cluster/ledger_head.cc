#include "cluster/ledger_head.h"

#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

void AppendLittleEndian(std::string& bytes, uint64_t value) {
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
}

}  // namespace

std::string CanonicalBytes(const LedgerHead& head) {
  std::string bytes = "eFedLLM ledger head 1\n";
  bytes.append(head.ledger.begin(), head.ledger.end());
  AppendLittleEndian(bytes, head.size);
  bytes.append(head.root.begin(), head.root.end());
  bytes.append(head.chain.begin(), head.chain.end());
  AppendLittleEndian(bytes, static_cast<uint64_t>(head.time_micros));
  return bytes;
}

SignedLedgerHead SignHead(const LedgerHead& head, const SigningKey& key) {
  return {head, key.public_key(), key.Sign(CanonicalBytes(head))};
}

bool IsSigned(const SignedLedgerHead& head) {
  return Verify(head.key, CanonicalBytes(head.head), head.signature);
}

absl::Status CheckHeadFollows(const LedgerHead& older, const LedgerHead& newer,
                              absl::Span<const Sha256Digest> proof) {
  if (older.ledger != newer.ledger) {
    return absl::InvalidArgumentError("the heads are of different ledgers");
  }
  if (older.size > newer.size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the ledger had ", older.size, " entries, and now it is said to have ", newer.size));
  }
  const bool same_end = older.size != newer.size || older.chain == newer.chain;
  if (!same_end || !VerifyConsistency(older.size, older.root, newer.size, newer.root, proof)) {
    return absl::DataLossError(absl::StrCat("the ledger was rewritten: the head of ", newer.size,
                                            " entries does not continue that of ", older.size));
  }
  return absl::OkStatus();
}

}  // namespace efedllm
