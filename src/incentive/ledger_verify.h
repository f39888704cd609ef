// Proves a ledger file offline: every bit of it, every entry, and every signed head.
#ifndef EFEDLLM_INCENTIVE_LEDGER_VERIFY_H_
#define EFEDLLM_INCENTIVE_LEDGER_VERIFY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/ledger_head.h"
#include "incentive/ledger_entry.h"
#include "store/sealed_pages.h"

namespace efedllm {

struct VerifyOptions {
  // That someone else kept, such as workers: the file must continue all of them.
  std::vector<SignedLedgerHead> heads;
  // Whoever signs the heads, in the file and out of it. nullopt: any key.
  std::optional<PublicKey> signer;
};

struct LedgerFault {
  // The first bad entry. nullopt: every entry is as it was written, what is wrong is elsewhere.
  std::optional<uint64_t> entry;
  std::string key;   // its key, as far as it can be read; printable
  std::string what;  // a sentence
};

struct LedgerVerification {
  // The first thing that is wrong. nullopt: all is proven.
  std::optional<LedgerFault> fault;
  // False: a log lay beside the file (its writer runs, or was killed), and was read with it. Then
  // pages were checked as far as they are in use.
  bool all_bytes_checked = false;
  SealReport seals;
  LedgerHead head;               // of the entries up to the first bad one; unsigned
  uint64_t signed_heads = 0;     // in the file
  uint64_t kept_heads = 0;       // of the options
  std::optional<PublicKey> key;  // that signed the last head in the file
  Micros issued = 0, in_escrow = 0, with_nodes = 0, with_owners = 0, with_keys = 0, penalties = 0;
  uint64_t open_work = 0;
};

// The file may be anything. NotFound: there is none, or it can't be read.
absl::StatusOr<LedgerVerification> VerifyLedger(const std::string& path,
                                                const VerifyOptions& options = {});

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_LEDGER_VERIFY_H_
