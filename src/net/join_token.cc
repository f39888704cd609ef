#include "net/join_token.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace efedllm {
namespace {

constexpr char kPrefix[] = "efl1";
constexpr size_t kSecretBytes = 16;
constexpr size_t kMaxTextBytes = 256;  // a token has 71

}  // namespace

std::string FormatJoinToken(const JoinToken& token) {
  const absl::string_view fingerprint(reinterpret_cast<const char*>(token.ca_fingerprint.data()),
                                      token.ca_fingerprint.size());
  return absl::StrCat(kPrefix, ".", absl::WebSafeBase64Escape(fingerprint), ".",
                      absl::WebSafeBase64Escape(token.secret));
}

absl::StatusOr<JoinToken> ParseJoinToken(absl::string_view text) {
  const absl::Status bad = absl::InvalidArgumentError(
      "not a join token: it looks like efl1.<43 characters>.<22 characters>, and the coordinator "
      "prints it at its start (or: efedllm-ctl token create)");
  if (text.size() > kMaxTextBytes) return bad;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '.');
  std::string fingerprint;
  JoinToken token;
  if (parts.size() != 3 || parts[0] != kPrefix ||
      !absl::WebSafeBase64Unescape(parts[1], &fingerprint) ||
      !absl::WebSafeBase64Unescape(parts[2], &token.secret) ||
      fingerprint.size() != token.ca_fingerprint.size() || token.secret.size() != kSecretBytes) {
    return bad;
  }
  std::copy(fingerprint.begin(), fingerprint.end(), token.ca_fingerprint.begin());
  // One text per token: base64's padding and unused bits allow others.
  if (FormatJoinToken(token) != text) return bad;
  return token;
}

}  // namespace efedllm
