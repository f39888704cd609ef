// A head of the ledger: what the coordinator commits to with its signature, and workers keep. Two
// signed heads of one ledger that no proof reconciles are proof of a fork.
#ifndef EFEDLLM_CLUSTER_LEDGER_HEAD_H_
#define EFEDLLM_CLUSTER_LEDGER_HEAD_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cluster/merkle.h"
#include "common/sha256.h"
#include "common/signing.h"

namespace efedllm {

struct LedgerHead {
  Sha256Digest ledger = {};  // which: its first entry's hash
  uint64_t size = 0;         // entries
  Sha256Digest root = {};    // of the Merkle tree over the entries' hashes
  Sha256Digest chain = {};   // the last entry's hash
  int64_t time_micros = 0;   // since 1970, of signing

  friend bool operator==(const LedgerHead&, const LedgerHead&) = default;
};

struct SignedLedgerHead {
  LedgerHead head;
  PublicKey key = {};        // the coordinator's
  Signature signature = {};  // over CanonicalBytes(head)

  friend bool operator==(const SignedLedgerHead&, const SignedLedgerHead&) = default;
};

// What is signed: a line that says what it is, and the fields in order, integers little-endian.
std::string CanonicalBytes(const LedgerHead& head);

SignedLedgerHead SignHead(const LedgerHead& head, const SigningKey& key);
// Whether the owner of head.key signed it. Whose key that should be, the caller knows.
bool IsSigned(const SignedLedgerHead& head);

// Whether `newer` is of the same ledger with the same history as `older`. Signatures are the
// caller's to check, before. proof: from older.size to newer.size. InvalidArgument: of another
// ledger, or newer is the shorter one; DataLoss: the histories differ, or the proof shows nothing.
absl::Status CheckHeadFollows(const LedgerHead& older, const LedgerHead& newer,
                              absl::Span<const Sha256Digest> proof);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_LEDGER_HEAD_H_
