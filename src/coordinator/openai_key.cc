#include "coordinator/openai_key.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/sha256.h"

namespace efedllm {
namespace {

constexpr size_t kMaxKeyBytes = 255;

Sha256Digest HashOf(const std::string& text) {
  return Sha256({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

}  // namespace

ApiResult<RequestKey> ParseRequestKey(const HttpRequest& request, const std::string& owner,
                                      absl::string_view key) {
  const bool printable = std::all_of(
      key.begin(), key.end(), [](char c) { return absl::ascii_isprint(static_cast<uint8_t>(c)); });
  if (key.empty() || key.size() > kMaxKeyBytes || !printable) {
    return ApiError{
        400,
        absl::StrCat("Idempotency-Key must be 1 to ", kMaxKeyBytes, " printable ASCII characters"),
        "", "invalid_idempotency_key"};
  }
  const std::string name = absl::StrCat(owner, " ", key);  // an owner has no space
  const Sha256Digest seed = HashOf(absl::StrCat("seed ", name));
  RequestKey result;
  result.id = ToHex(HashOf(name));
  result.fingerprint = ToHex(HashOf(absl::StrCat(request.path, " ", request.body)));
  std::memcpy(&result.seed, seed.data(), sizeof(result.seed));
  return result;
}

}  // namespace efedllm
