// Join tokens: who may enrol. Only the SHA-256 of a token's secret is kept, except for the one that
// the coordinator prints at its start, which stands in <state_dir>/join-token (0600).
#ifndef EFEDLLM_COORDINATOR_JOIN_TOKENS_H_
#define EFEDLLM_COORDINATOR_JOIN_TOKENS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/sha256.h"
#include "store/database.h"

namespace efedllm {

// The start-up token's life.
inline constexpr absl::Duration kStartTokenTtl = absl::Hours(7 * 24);

enum class JoinTokenState { kValid, kSpent, kExpired, kRevoked };

struct JoinTokenInfo {
  std::string id;  // 8 hex digits, for people
  absl::Time created;
  absl::Time expires;  // InfiniteFuture: never
  uint64_t uses = 0;   // 0: any number
  uint64_t used = 0;
  bool revoked = false;
  std::string owner;  // of the nodes that join with it; empty: they say so themselves

  // The first that holds of: revoked, expired, spent.
  JoinTokenState StateAt(absl::Time now) const;
};

// "valid", "spent", "expired", "revoked".
absl::string_view JoinTokenStateName(JoinTokenState state);

// Thread-safe. Borrows database and clock.
class JoinTokens {
 public:
  JoinTokens(Database& database, const Clock& clock, const Sha256Digest& ca_fingerprint)
      : database_(database), clock_(clock), ca_fingerprint_(ca_fingerprint) {}

  struct Created {
    JoinTokenInfo info;
    std::string text;  // the whole token, nowhere else
  };
  // ttl: zero means that it does not expire; at most 10 years. uses: 0 means any number. owner:
  // printable, at most 64 bytes.
  absl::StatusOr<Created> Create(absl::Duration ttl, uint64_t uses, const std::string& owner = "");
  // Oldest first.
  absl::StatusOr<std::vector<JoinTokenInfo>> List();
  // NotFound: no such id. Fine if it was revoked before.
  absl::StatusOr<JoinTokenInfo> Revoke(absl::string_view id);

  // Counts a use; the token. Unauthenticated: wrong, revoked, expired or spent, and which. secret:
  // as in JoinToken; comes from a peer.
  absl::StatusOr<JoinTokenInfo> Redeem(absl::string_view secret);

  // The token of <state_dir>/join-token if it still admits workers; else a new one for any number
  // of workers, which is written there.
  absl::StatusOr<std::string> StartToken(const std::string& state_dir);

 private:
  Database& database_;
  const Clock& clock_;
  const Sha256Digest ca_fingerprint_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_JOIN_TOKENS_H_
