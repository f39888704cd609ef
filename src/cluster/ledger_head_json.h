// Signed heads of the ledger as JSON, one a line, as operators and workers keep them.
#ifndef EFEDLLM_CLUSTER_LEDGER_HEAD_JSON_H_
#define EFEDLLM_CLUSTER_LEDGER_HEAD_JSON_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster/ledger_head.h"

namespace efedllm {

// {"chain", "key", "ledger", "root", "signature", "size", "time_micros"}, bytes in hex.
std::string HeadToJson(const SignedLedgerHead& head);
// The file may be anything; signatures are the caller's to check. InvalidArgument names the line
// that is no head.
absl::StatusOr<std::vector<SignedLedgerHead>> ParseHeads(absl::string_view text);
// 64 hex digits.
absl::StatusOr<PublicKey> ParsePublicKey(absl::string_view hex);
std::string PublicKeyHex(const PublicKey& key);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_LEDGER_HEAD_JSON_H_
