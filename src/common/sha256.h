// SHA-256 (FIPS 180-4) over OpenSSL: names of tensors, chunks, certificates.
#ifndef EFEDLLM_COMMON_SHA256_H_
#define EFEDLLM_COMMON_SHA256_H_

#include <array>
#include <cstdint>
#include <string>

#include "absl/types/span.h"

namespace efedllm {

using Sha256Digest = std::array<uint8_t, 32>;

Sha256Digest Sha256(absl::Span<const uint8_t> bytes);

// The same, piece by piece, and again and again: for many short texts. Not thread-safe.
class Sha256Hasher {
 public:
  Sha256Hasher();
  ~Sha256Hasher();
  Sha256Hasher(const Sha256Hasher&) = delete;
  Sha256Hasher& operator=(const Sha256Hasher&) = delete;

  void Add(absl::Span<const uint8_t> bytes);
  // Of all that was added since the last Finish.
  Sha256Digest Finish();

 private:
  void* const context_;  // an EVP_MD_CTX
};

// 64 lower-case hex digits.
std::string ToHex(const Sha256Digest& digest);

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_SHA256_H_
