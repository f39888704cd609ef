// The bodies of /v1/completions and /v1/chat/completions as domain values: pure functions of bytes
// that a client sent.
#ifndef EFEDLLM_COORDINATOR_OPENAI_REQUEST_H_
#define EFEDLLM_COORDINATOR_OPENAI_REQUEST_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/generation.h"
#include "coordinator/openai_json.h"
#include "coordinator/served_model.h"
#include "text/chat_template.h"
#include "text/sampler.h"

namespace efedllm {

inline constexpr size_t kMaxChoices = 128;  // prompts x n
inline constexpr int kMaxTopLogprobs = 20;
inline constexpr int kMaxPriority = 100;

// A prompt as text or as token ids.
using RequestPrompt = std::variant<std::string, std::vector<int32_t>>;

struct ApiRequest {
  bool chat = false;
  std::optional<std::string> model;
  std::vector<RequestPrompt> prompts;         // completions: at least one
  std::vector<ChatMessage> messages;          // chat: at least one
  nlohmann::ordered_json template_variables;  // chat_template_kwargs: an object, or null
  std::optional<uint32_t> max_tokens;
  SamplingOptions sampling;  // but for the seed; valid
  std::optional<int64_t> seed;
  std::vector<std::pair<int32_t, float>> logit_bias;  // tokens not yet checked
  std::vector<std::string> stop;                      // none empty
  size_t n = 1;                                       // choices per prompt
  std::optional<int> logprobs;                        // top this many
  bool echo = false;
  bool ignore_eos = false;
  bool stream = false;
  bool include_usage = false;                         // in a stream
  int priority = 0;                                   // -kMaxPriority to kMaxPriority
  absl::Duration timeout = absl::InfiniteDuration();  // from the request's arrival on
  bool speculation = true;
  bool cache_prompt = true;
};

ApiResult<ApiRequest> ParseCompletionRequest(absl::string_view body);
ApiResult<ApiRequest> ParseChatRequest(absl::string_view body);

// Whose request it is, for fair share: 16 hex digits of a hash of the API key in an Authorization
// header, so that nobody learns the key from it. Empty: there is none.
std::string OwnerOf(absl::string_view authorization);

// What the scheduler is to do: for each prompt n choices, choice i being prompt i / n.
struct BoundRequest {
  std::vector<GenerationInput> choices;
  std::vector<std::string> prompt_texts;  // one per prompt, where echo asks for it
  size_t prompt_tokens = 0;               // of all prompts, each counted once
};

// Tokens, limits and seeds for this model; owner and deadline are the caller's to set.
// max_positions: prompt and output together.
ApiResult<BoundRequest> BindRequest(const ApiRequest& request, const ServedModel& model,
                                    uint32_t max_positions);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_OPENAI_REQUEST_H_
