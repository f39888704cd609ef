// BindRequest: what depends on the model.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/random.h"
#include "coordinator/openai_request.h"

namespace efedllm {
namespace {

constexpr uint32_t kDefaultCompletionTokens = 16;  // OpenAI's

ApiError TooLong(const std::string& what, const ApiRequest& request, uint32_t max_positions) {
  return {400,
          absl::StrCat("This model's maximum context length is ", max_positions, " tokens. ", what),
          request.chat ? "messages" : "prompt", "context_length_exceeded"};
}

// Known without tokenizing: a token stands for max_piece_bytes at most.
std::optional<ApiError> RefuseHopeless(size_t bytes, const ApiRequest& request,
                                       const ServedModel& model, uint32_t max_positions) {
  const size_t least = bytes / std::max<size_t>(model.tokenizer->max_piece_bytes(), 1);
  if (least <= max_positions) return std::nullopt;
  return TooLong(
      absl::StrCat("The prompt has ", bytes, " bytes, which are at least ", least, " tokens."),
      request, max_positions);
}

ApiResult<std::vector<int32_t>> ChatPrompt(const ApiRequest& request, const ServedModel& model,
                                           uint32_t max_positions) {
  if (!model.chat_template.ok()) {
    return ApiError{400,
                    absl::StrCat("this model can't chat: ", model.chat_template.status().message()),
                    "messages", ""};
  }
  size_t bytes = 0;
  for (const ChatMessage& message : request.messages) bytes += message.content.size();
  if (auto error = RefuseHopeless(bytes, request, model, max_positions)) return *error;
  ChatOptions options;
  options.variables = request.template_variables;
  const auto pieces = model.chat_template->Render(request.messages, options);
  if (!pieces.ok()) {
    return ApiError{400, std::string(pieces.status().message()), "messages", ""};
  }
  return model.tokenizer->EncodePrompt(*pieces, /*add_special=*/true);
}

ApiResult<std::vector<int32_t>> CompletionPrompt(const RequestPrompt& prompt,
                                                 const ApiRequest& request,
                                                 const ServedModel& model, uint32_t max_positions) {
  if (const auto* tokens = std::get_if<std::vector<int32_t>>(&prompt)) {
    const auto vocab = static_cast<int32_t>(model.config.vocab);
    for (const int32_t token : *tokens) {
      if (token >= 0 && token < vocab) continue;
      return ApiError{400,
                      absl::StrCat("prompt has a token id outside of the vocabulary: ids are "
                                   "0 to ",
                                   vocab - 1),
                      "prompt", ""};
    }
    return *tokens;
  }
  // This is the raw interface: who writes "<|im_start|>" here means the token.
  const auto& text = std::get<std::string>(prompt);
  if (auto error = RefuseHopeless(text.size(), request, model, max_positions)) return *error;
  std::vector<int32_t> tokens =
      model.tokenizer->Encode(text, {.add_special = true, .parse_special = true});
  if (!tokens.empty()) return tokens;
  return ApiError{400, "prompt is empty, and this model has no token that begins a text", "prompt",
                  ""};
}

ApiResult<std::vector<std::vector<int32_t>>> Prompts(const ApiRequest& request,
                                                     const ServedModel& model,
                                                     uint32_t max_positions) {
  std::vector<std::vector<int32_t>> prompts;
  for (size_t i = 0; i < (request.chat ? 1 : request.prompts.size()); ++i) {
    ApiResult<std::vector<int32_t>> tokens =
        request.chat ? ChatPrompt(request, model, max_positions)
                     : CompletionPrompt(request.prompts[i], request, model, max_positions);
    if (auto* error = std::get_if<ApiError>(&tokens)) return std::move(*error);
    prompts.push_back(std::get<std::vector<int32_t>>(std::move(tokens)));
  }
  return prompts;
}

// Room for the output of a prompt: what was asked for, or what is usual.
ApiResult<uint32_t> OutputTokens(size_t prompt, const ApiRequest& request, uint32_t max_positions) {
  const uint64_t asked = request.max_tokens.value_or(1);
  if (prompt + asked > max_positions) {
    return TooLong(
        absl::StrCat("You asked for ", prompt + asked, " tokens: ", prompt, " in the prompt and ",
                     request.max_tokens.has_value() ? "" : "at least ", asked, " for the output."),
        request, max_positions);
  }
  const auto room = static_cast<uint32_t>(max_positions - prompt);
  if (request.max_tokens.has_value()) return *request.max_tokens;
  return request.chat ? room : std::min(room, kDefaultCompletionTokens);
}

std::string PromptText(const RequestPrompt& prompt, const ServedModel& model) {
  if (const auto* text = std::get_if<std::string>(&prompt)) return *text;
  return model.tokenizer->Decode(std::get<std::vector<int32_t>>(prompt), /*remove_special=*/true,
                                 /*unparse_special=*/true);
}

}  // namespace

ApiResult<BoundRequest> BindRequest(const ApiRequest& request, const ServedModel& model,
                                    uint32_t max_positions) {
  for (const auto& [token, bias] : request.logit_bias) {
    if (token < static_cast<int32_t>(model.config.vocab)) continue;
    return ApiError{
        400,
        absl::StrCat("logit_bias names token ", token, "; ids end at ", model.config.vocab - 1),
        "logit_bias", ""};
  }
  auto prompts = Prompts(request, model, max_positions);
  if (auto* error = std::get_if<ApiError>(&prompts)) return std::move(*error);

  BoundRequest bound;
  const uint64_t seed =
      request.seed.has_value() ? static_cast<uint64_t>(*request.seed) : SecureRandomU64();
  auto& tokens = std::get<std::vector<std::vector<int32_t>>>(prompts);
  for (size_t p = 0; p < tokens.size(); ++p) {
    const ApiResult<uint32_t> most = OutputTokens(tokens[p].size(), request, max_positions);
    if (const auto* error = std::get_if<ApiError>(&most)) return *error;
    if (request.echo) bound.prompt_texts.push_back(PromptText(request.prompts[p], model));
    bound.prompt_tokens += tokens[p].size();

    GenerationInput input;
    input.prompt = std::move(tokens[p]);
    input.max_tokens = std::get<uint32_t>(most);
    input.sampling = request.sampling;
    input.logit_bias = request.logit_bias;
    input.stop = request.stop;
    input.ignore_eos = request.ignore_eos;
    input.logprobs = request.logprobs;
    input.priority = request.priority;
    input.speculation = request.speculation;
    input.cache_prompt = request.cache_prompt;
    input.prompt_logprobs = request.echo && request.logprobs.has_value();
    for (size_t i = 0; i < request.n; ++i) {
      input.sampling.seed = seed + i;  // a prompt gets what it would get alone
      bound.choices.push_back(input);
    }
  }
  return bound;
}

}  // namespace efedllm
