// libs: efedllm_coordinator
// An HTTP body becomes a request or an error that can be sent, whatever its bytes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <variant>

#include "coordinator/openai_json.h"
#include "coordinator/openai_request.h"

namespace {

void Check(const efedllm::ApiResult<efedllm::ApiRequest>& result) {
  using efedllm::ApiError;
  if (const auto* error = std::get_if<ApiError>(&result)) {
    if (error->status != 400 || error->message.empty()) std::abort();
    if (efedllm::ErrorReplyFor(*error).body.size() > 8 * error->message.size() + 4096) std::abort();
    return;
  }
  const auto& request = std::get<efedllm::ApiRequest>(result);
  if (request.chat ? request.messages.empty() : request.prompts.empty()) std::abort();
  if (request.n < 1 || request.prompts.size() * request.n > efedllm::kMaxChoices) std::abort();
  if (!efedllm::ValidateSamplingOptions(request.sampling).ok()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view body(reinterpret_cast<const char*>(data), size);
  Check(efedllm::ParseCompletionRequest(body));
  Check(efedllm::ParseChatRequest(body));
  return 0;
}
