// Ed25519 over OpenSSL: who said what. A node signs its receipts with the key that it is; the
// coordinator signs what it grants.
#ifndef EFEDLLM_COMMON_SIGNING_H_
#define EFEDLLM_COMMON_SIGNING_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"

namespace efedllm {

using PublicKey = std::array<uint8_t, 32>;  // as RFC 8032 encodes it
using Signature = std::array<uint8_t, 64>;

// Immutable; thread-safe. Copies share the key.
class SigningKey {
 public:
  // PEM (PKCS #8), as net/credentials.h makes node keys. InvalidArgument: not an Ed25519 key.
  static absl::StatusOr<SigningKey> FromPem(absl::string_view pem);
  // Reads the key in this file, or makes one (0600) where there is none. FailedPrecondition: what
  // is there is no key; says what to do.
  static absl::StatusOr<SigningKey> OpenOrCreate(const std::string& path);

  const PublicKey& public_key() const { return public_key_; }
  // What is signed begins with words of its own for each kind of statement, so that none can be
  // taken for another.
  Signature Sign(absl::string_view message) const;

 private:
  SigningKey() = default;

  std::shared_ptr<void> key_;  // an EVP_PKEY
  PublicKey public_key_ = {};
};

// All of these may come from a peer.
bool Verify(const PublicKey& key, absl::string_view message, const Signature& signature);

// A node is its key (common/ids.h): whoever signs with this key is this node.
NodeId NodeOfPublicKey(const PublicKey& key);

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_SIGNING_H_
