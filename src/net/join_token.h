// A join token: what an operator carries from the coordinator to a worker. efl1.<CA
// fingerprint>.<secret>, base64url.
#ifndef EFEDLLM_NET_JOIN_TOKEN_H_
#define EFEDLLM_NET_JOIN_TOKEN_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/sha256.h"

namespace efedllm {

struct JoinToken {
  Sha256Digest ca_fingerprint;
  std::string secret;  // 16 bytes
};

std::string FormatJoinToken(const JoinToken& token);
// InvalidArgument says what a token looks like; the message does not repeat the text.
absl::StatusOr<JoinToken> ParseJoinToken(absl::string_view text);

// The CA certificate (PEM) that the server at address shows and whose SHA-256 is the fingerprint;
// its chain is verified. Unavailable: nobody answers; PermissionDenied: another CA ("this token is
// of another coordinator, or somebody is in between"); InvalidArgument: not a TLS server there;
// OutOfRange: its certificate is not valid by this machine's clock.
absl::StatusOr<std::string> FetchPinnedCa(const std::string& address,
                                          const Sha256Digest& fingerprint, absl::Duration timeout);

}  // namespace efedllm

#endif  // EFEDLLM_NET_JOIN_TOKEN_H_
