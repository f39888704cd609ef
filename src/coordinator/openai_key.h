// Idempotency-Key: what names a request that may be sent again.
#ifndef EFEDLLM_COORDINATOR_OPENAI_KEY_H_
#define EFEDLLM_COORDINATOR_OPENAI_KEY_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "coordinator/openai_json.h"
#include "net/http_server.h"

namespace efedllm {

struct RequestKey {
  std::string id;           // a hash of the owner and the key: no two clients share one
  std::string fingerprint;  // a hash of what was asked
  int64_t seed = 0;         // of who asks for none: run again, the request gives the same text
};

// owner: OwnerOf's. Refused: a key that is empty, longer than 255 bytes, or not printable ASCII.
ApiResult<RequestKey> ParseRequestKey(const HttpRequest& request, const std::string& owner,
                                      absl::string_view key);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_OPENAI_KEY_H_
