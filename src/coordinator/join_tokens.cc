#include "coordinator/join_tokens.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/logging.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "net/join_token.h"

namespace efedllm {
namespace {

constexpr size_t kSecretBytes = 16;
constexpr absl::Duration kMaxTtl = absl::Hours(10 * 365 * 24);
constexpr int64_t kMaxTokens = 10000;
constexpr size_t kMaxOwnerBytes = 64;
constexpr char kColumns[] = "id, created, expires, uses, used, revoked, owner";

// Looked up by hash: what the time of a look-up tells is about a hash that nobody chose.
std::string HashOf(absl::string_view secret) {
  const Sha256Digest digest =
      Sha256({reinterpret_cast<const uint8_t*>(secret.data()), secret.size()});
  return std::string(reinterpret_cast<const char*>(digest.data()), digest.size());
}

JoinTokenInfo FromRow(const SqlRow& row) {
  JoinTokenInfo info;
  info.id = SqlText(row[0]);
  info.created = absl::FromUnixSeconds(SqlInt(row[1]));
  const int64_t expires = SqlInt(row[2]);
  info.expires = expires == 0 ? absl::InfiniteFuture() : absl::FromUnixSeconds(expires);
  info.uses = static_cast<uint64_t>(SqlInt(row[3]));
  info.used = static_cast<uint64_t>(SqlInt(row[4]));
  info.revoked = SqlInt(row[5]) != 0;
  info.owner = SqlText(row[6]);
  return info;
}

absl::StatusOr<JoinTokenInfo> FindBy(Transaction& sql, const std::string& column,
                                     const std::string& value) {
  ASSIGN_OR_RETURN(
      const std::vector<SqlRow> rows,
      sql.Query(absl::StrCat("SELECT ", kColumns, " FROM join_tokens WHERE ", column, " = ?"),
                {value}));
  if (rows.empty()) return absl::NotFoundError("no such join token");
  return FromRow(rows[0]);
}

absl::Status Refusal(JoinTokenState state) {
  constexpr char kAskForNew[] = "; make a new one at the coordinator: efedllm-ctl token create";
  switch (state) {
    case JoinTokenState::kValid:
      return absl::OkStatus();
    case JoinTokenState::kSpent:
      return absl::UnauthenticatedError(
          absl::StrCat("the join token is spent: it was used as often as it allows", kAskForNew));
    case JoinTokenState::kExpired:
      return absl::UnauthenticatedError(absl::StrCat("the join token has expired", kAskForNew));
    case JoinTokenState::kRevoked:
      return absl::UnauthenticatedError(absl::StrCat("the join token was revoked", kAskForNew));
  }
  return absl::InternalError("unknown token state");
}

}  // namespace

JoinTokenState JoinTokenInfo::StateAt(absl::Time now) const {
  if (revoked) return JoinTokenState::kRevoked;
  if (now >= expires) return JoinTokenState::kExpired;
  if (uses != 0 && used >= uses) return JoinTokenState::kSpent;
  return JoinTokenState::kValid;
}

absl::string_view JoinTokenStateName(JoinTokenState state) {
  switch (state) {
    case JoinTokenState::kValid:
      return "valid";
    case JoinTokenState::kSpent:
      return "spent";
    case JoinTokenState::kExpired:
      return "expired";
    case JoinTokenState::kRevoked:
      return "revoked";
  }
  return "unknown";
}

absl::StatusOr<JoinTokens::Created> JoinTokens::Create(absl::Duration ttl, uint64_t uses,
                                                       const std::string& owner) {
  if (ttl < absl::ZeroDuration() || ttl > kMaxTtl) {
    return absl::InvalidArgumentError("a token's ttl is at most 10 years; 0 means no end");
  }
  if (uses > 1'000'000'000) {
    return absl::InvalidArgumentError("a token's uses are at most 1000000000; 0 means any number");
  }
  if (owner.size() > kMaxOwnerBytes || owner != Printable(owner)) {
    return absl::InvalidArgumentError(
        absl::StrCat("an owner's name is printable, of at most ", kMaxOwnerBytes, " bytes"));
  }
  Created created;
  created.info.owner = owner;
  const std::string secret = SecureRandomBytes(kSecretBytes);
  created.text = FormatJoinToken({ca_fingerprint_, secret});
  created.info.id = absl::BytesToHexString(SecureRandomBytes(4));
  created.info.created = absl::FromUnixSeconds(absl::ToUnixSeconds(clock_.WallNow()));
  created.info.expires =
      ttl == absl::ZeroDuration() ? absl::InfiniteFuture() : created.info.created + ttl;
  created.info.uses = uses;
  const int64_t expires =
      ttl == absl::ZeroDuration() ? 0 : absl::ToUnixSeconds(created.info.expires);
  RETURN_IF_ERROR(database_.Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SqlRow> count,
                     sql.Query("SELECT count(*) FROM join_tokens"));
    if (SqlInt(count[0][0]) >= kMaxTokens) {
      return absl::ResourceExhaustedError(
          absl::StrCat("there are ", kMaxTokens, " tokens already"));
    }
    return sql
        .Execute(
            "INSERT INTO join_tokens (id, secret_hash, created, expires, uses, owner) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            {created.info.id, HashOf(secret), absl::ToUnixSeconds(created.info.created), expires,
             static_cast<int64_t>(uses), owner})
        .status();
  }));
  return created;
}

absl::StatusOr<std::vector<JoinTokenInfo>> JoinTokens::List() {
  std::vector<JoinTokenInfo> tokens;
  RETURN_IF_ERROR(database_.Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(
        const std::vector<SqlRow> rows,
        sql.Query(absl::StrCat("SELECT ", kColumns, " FROM join_tokens ORDER BY created, rowid")));
    for (const SqlRow& row : rows) tokens.push_back(FromRow(row));
    return absl::OkStatus();
  }));
  return tokens;
}

absl::StatusOr<JoinTokenInfo> JoinTokens::Revoke(absl::string_view id) {
  JoinTokenInfo info;
  RETURN_IF_ERROR(database_.Transact([&](Transaction& sql) -> absl::Status {
    const std::string text(id);
    RETURN_IF_ERROR(
        sql.Execute("UPDATE join_tokens SET revoked = 1 WHERE id = ?", {text}).status());
    ASSIGN_OR_RETURN(info, FindBy(sql, "id", text));
    return absl::OkStatus();
  }));
  return info;
}

absl::StatusOr<JoinTokenInfo> JoinTokens::Redeem(absl::string_view secret) {
  absl::StatusOr<JoinTokenInfo> info = absl::NotFoundError("");
  RETURN_IF_ERROR(database_.Transact([&](Transaction& sql) -> absl::Status {
    info = FindBy(sql, "secret_hash", HashOf(secret));
    if (absl::IsNotFound(info.status())) {
      return absl::UnauthenticatedError(
          "the join token is wrong: this coordinator did not make it; copy the one that it printed "
          "at its start");
    }
    if (!info.ok()) return info.status();
    RETURN_IF_ERROR(Refusal(info->StateAt(clock_.WallNow())));
    return sql.Execute("UPDATE join_tokens SET used = used + 1 WHERE id = ?", {info->id}).status();
  }));
  return info;
}

absl::StatusOr<std::string> JoinTokens::StartToken(const std::string& state_dir) {
  const std::string path = state_dir + "/join-token";
  const absl::StatusOr<std::string> text = ReadFile(path, 4096);
  if (text.ok()) {
    const std::string token(absl::StripAsciiWhitespace(absl::string_view(*text)));
    const absl::StatusOr<JoinToken> parsed = ParseJoinToken(token);
    if (parsed.ok() && parsed->ca_fingerprint == ca_fingerprint_) {
      absl::StatusOr<JoinTokenInfo> info = absl::NotFoundError("");
      RETURN_IF_ERROR(database_.Transact([&](Transaction& sql) {
        info = FindBy(sql, "secret_hash", HashOf(parsed->secret));
        return absl::IsNotFound(info.status()) ? absl::OkStatus() : info.status();
      }));
      if (info.ok() && info->StateAt(clock_.WallNow()) == JoinTokenState::kValid) return token;
      spdlog::info("the join token of the last start admits no more workers; making a new one");
    }
  } else if (!absl::IsNotFound(text.status())) {
    return text.status();
  }
  ASSIGN_OR_RETURN(const Created created, Create(kStartTokenTtl, 0));
  RETURN_IF_ERROR(WriteFileAtomically(path, created.text + "\n", 0600));
  return created.text;
}

}  // namespace efedllm
