#include "common/signing.h"

#include <openssl/evp.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/file.h"
#include "common/openssl_ptr.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr size_t kMaxKeyBytes = 64u << 10;
// What stands in front of an Ed25519 key in a public key's DER form (RFC 8410).
constexpr std::array<uint8_t, 12> kDerPrefix = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                                0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

using openssl::DigestContextPtr;
using openssl::KeyPtr;

const unsigned char* Bytes(absl::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

absl::StatusOr<SigningKey> SigningKey::FromPem(absl::string_view pem) {
  ASSIGN_OR_RETURN(KeyPtr key, openssl::ParseKey(pem));
  SigningKey result;
  size_t size = result.public_key_.size();
  if (EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_ED25519 ||
      EVP_PKEY_get_raw_public_key(key.get(), result.public_key_.data(), &size) != 1) {
    return absl::InvalidArgumentError("not an Ed25519 key in PEM form");
  }
  result.key_ = std::shared_ptr<EVP_PKEY>(std::move(key));
  return result;
}

absl::StatusOr<SigningKey> SigningKey::OpenOrCreate(const std::string& path) {
  absl::StatusOr<std::string> pem = ReadFile(path, kMaxKeyBytes);
  if (absl::IsNotFound(pem.status())) {
    pem = openssl::ToPem(openssl::NewEd25519Key().get());
    RETURN_IF_ERROR(WriteFileAtomically(path, *pem, 0600));
  }
  if (!pem.ok()) return pem.status();
  absl::StatusOr<SigningKey> key = FromPem(*pem);
  if (key.ok()) return key;
  return absl::FailedPreconditionError(
      absl::StrCat(path, " is damaged (", key.status().message(),
                   "): restore it from a backup. Whoever kept statements that it signed needs it "
                   "to check them"));
}

Signature SigningKey::Sign(absl::string_view message) const {
  const DigestContextPtr context(EVP_MD_CTX_new());
  CHECK(context != nullptr);
  Signature signature;
  size_t size = signature.size();
  CHECK(EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr,
                           static_cast<EVP_PKEY*>(key_.get())) == 1);
  CHECK(EVP_DigestSign(context.get(), signature.data(), &size, Bytes(message), message.size()) ==
        1);
  CHECK(size == signature.size());
  return signature;
}

bool Verify(const PublicKey& key, absl::string_view message, const Signature& signature) {
  const KeyPtr parsed(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key.data(), key.size()));
  const DigestContextPtr context(EVP_MD_CTX_new());
  CHECK(context != nullptr);
  const bool right =
      parsed != nullptr &&
      EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, parsed.get()) == 1 &&
      EVP_DigestVerify(context.get(), signature.data(), signature.size(), Bytes(message),
                       message.size()) == 1;
  // A wrong one leaves an error in this thread's queue, where TLS would find it.
  if (!right) openssl::TakeError();
  return right;
}

NodeId NodeOfPublicKey(const PublicKey& key) {
  std::array<uint8_t, kDerPrefix.size() + std::tuple_size_v<PublicKey>> der;
  std::copy(key.begin(), key.end(), std::copy(kDerPrefix.begin(), kDerPrefix.end(), der.begin()));
  const Sha256Digest digest = Sha256(der);
  NodeId node;
  for (int i = 0; i < 8; ++i) node.v = node.v << 8 | digest[i];
  return node;
}

}  // namespace efedllm
