#include "coordinator/openai_request.h"

#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/sha256.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = 1024;
constexpr size_t kMaxLogitBias = 1024;
constexpr size_t kOwnerDigits = 16;
constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();

// Absent, or of no effect: null, false, [], {}.
bool IsBlank(const json* value) {
  return value == nullptr || value->is_null() || *value == false ||
         (value->is_structured() && value->empty());
}

bool IsBlankString(const json* value) {
  return value == nullptr || (value->is_string() && value->get_ref<const std::string&>().empty());
}

void RefuseUnsupported(FieldReader& fields, const char* name) {
  fields.Fail(name, absl::StrCat(name, " is not supported by this server"));
}

void ReadSampling(FieldReader& fields, SamplingOptions& sampling) {
  const auto number = [&](const char* name, float& value) {
    if (const auto given = fields.Number(name)) value = static_cast<float>(*given);
  };
  number("temperature", sampling.temperature);
  number("top_p", sampling.top_p);
  number("min_p", sampling.min_p);
  number("presence_penalty", sampling.presence_penalty);
  number("frequency_penalty", sampling.frequency_penalty);
  number("repetition_penalty", sampling.repetition_penalty);
  if (const auto top_k = fields.Integer("top_k", -1, kMaxTokens)) {
    sampling.top_k = *top_k < 0 ? 0 : static_cast<int32_t>(*top_k);  // -1: off, as vLLM has it
  }
  const absl::Status valid = ValidateSamplingOptions(sampling);
  if (valid.ok()) return;
  const std::string message(valid.message());  // begins with the field's name
  fields.Fail(message.substr(0, message.find(' ')), message);
}

void ReadStop(FieldReader& fields, std::vector<std::string>& stop) {
  const json* value = fields.Find("stop");
  if (value == nullptr) return;
  const json list = value->is_string() ? json::array({*value}) : *value;
  if (!list.is_array()) return fields.Fail("stop", "stop must be a string or an array of strings");
  if (list.size() > kMaxStops) {
    return fields.Fail("stop", absl::StrCat("stop has ", list.size(), " strings; at most ",
                                            kMaxStops, " are allowed"));
  }
  for (const json& item : list) {
    if (!item.is_string()) return fields.Fail("stop", "stop must consist of strings");
    const auto& text = item.get_ref<const std::string&>();
    if (text.size() > kMaxStopBytes) {
      return fields.Fail("stop", absl::StrCat("a stop string has ", text.size(), " bytes; at most ",
                                              kMaxStopBytes, " are allowed"));
    }
    if (!text.empty()) stop.push_back(text);
  }
}

void ReadLogitBias(FieldReader& fields, std::vector<std::pair<int32_t, float>>& bias) {
  const json* value = fields.Find("logit_bias");
  if (value == nullptr) return;
  if (!value->is_object() || value->size() > kMaxLogitBias) {
    return fields.Fail("logit_bias", absl::StrCat("logit_bias must be an object of at most ",
                                                  kMaxLogitBias, " token ids"));
  }
  for (const auto& [key, item] : value->items()) {
    int32_t token = 0;
    const bool known = absl::SimpleAtoi(key, &token) && token >= 0;
    if (!known || !item.is_number() || !(item.get<double>() >= -100 && item.get<double>() <= 100)) {
      return fields.Fail("logit_bias", "logit_bias must map token ids to numbers from -100 to 100");
    }
    bias.emplace_back(token, item.get<float>());
  }
}

void ReadStreaming(FieldReader& fields, ApiRequest& request) {
  request.stream = fields.Bool("stream").value_or(false);
  const json* options = fields.Find("stream_options");
  if (options == nullptr) return;
  if (!options->is_object())
    return fields.Fail("stream_options", "stream_options must be an object");
  if (!request.stream) {
    return fields.Fail("stream_options", "stream_options is only allowed where stream is true");
  }
  FieldReader inner(*options);
  request.include_usage = inner.Bool("include_usage").value_or(false);
  if (inner.error().has_value()) {
    fields.Fail(absl::StrCat("stream_options.", inner.error()->param), inner.error()->message);
  }
}

// How the request is to be served, beside what it is.
void ReadService(FieldReader& fields, ApiRequest& request) {
  request.priority =
      static_cast<int>(fields.Integer("priority", -kMaxPriority, kMaxPriority).value_or(0));
  if (const auto seconds = fields.Number("timeout")) {
    if (!(*seconds > 0)) fields.Fail("timeout", "timeout must be more than 0 seconds");
    request.timeout = absl::Seconds(*seconds);
  }
  request.speculation = fields.Bool("speculation").value_or(true);
  request.cache_prompt = fields.Bool("cache_prompt").value_or(true);
}

// What both kinds of request have.
void ReadCommon(FieldReader& fields, ApiRequest& request) {
  request.model = fields.String("model");
  ReadSampling(fields, request.sampling);
  request.seed = fields.Integer("seed", std::numeric_limits<int64_t>::min(),
                                std::numeric_limits<int64_t>::max());
  ReadStop(fields, request.stop);
  ReadLogitBias(fields, request.logit_bias);
  ReadStreaming(fields, request);
  ReadService(fields, request);
  request.ignore_eos = fields.Bool("ignore_eos").value_or(false);
  request.n = static_cast<size_t>(fields.Integer("n", 1, kMaxChoices).value_or(1));
}

ApiResult<ApiRequest> Done(const FieldReader& fields, ApiRequest request) {
  if (fields.error().has_value()) return *fields.error();
  return request;
}

bool IsTokens(const json& value) {
  if (!value.is_array() || value.empty()) return false;
  for (const json& item : value) {
    if (!item.is_number_integer()) return false;
  }
  return true;
}

// Ids beyond int32 become -1, which no vocabulary has.
RequestPrompt TokensOf(const json& value) {
  std::vector<int32_t> tokens;
  tokens.reserve(value.size());
  for (const json& item : value) {
    const bool fits = item.is_number_unsigned() && item.get<uint64_t>() <= uint64_t{kMaxTokens};
    tokens.push_back(fits ? item.get<int32_t>() : -1);
  }
  return tokens;
}

void ReadPrompts(FieldReader& fields, ApiRequest& request) {
  const json* value = fields.Find("prompt");
  if (value == nullptr) return fields.Fail("prompt", "prompt is missing");
  const json list = value->is_string() || IsTokens(*value) ? json::array({*value}) : *value;
  const char* wrong =
      "prompt must be a string, an array of strings, an array of token ids, or an array of those";
  if (!list.is_array() || list.empty()) return fields.Fail("prompt", wrong);
  if (list.size() * request.n > kMaxChoices) {
    return fields.Fail("prompt", absl::StrCat(list.size(), " prompts with n = ", request.n,
                                              " are more than ", kMaxChoices, " choices"));
  }
  for (const json& item : list) {
    if (item.is_string()) {
      request.prompts.emplace_back(item.get<std::string>());
    } else if (IsTokens(item)) {
      request.prompts.push_back(TokensOf(item));
    } else {
      return fields.Fail("prompt", wrong);
    }
  }
}

// A message's content: a string, or parts of type text, which stand one after the other.
std::optional<std::string> ContentOf(const json& message, const std::string& where,
                                     FieldReader& fields) {
  const auto it = message.find("content");
  const std::string param = absl::StrCat(where, ".content");
  if (it != message.end() && it->is_string()) return it->get<std::string>();
  if (it == message.end() || !it->is_array()) {
    fields.Fail(param, absl::StrCat(param, " must be a string or an array of text parts"));
    return std::nullopt;
  }
  std::string text;
  for (const json& part : *it) {
    const bool is_text = part.is_object() && part.contains("type") && part["type"] == "text" &&
                         part.contains("text") && part["text"].is_string();
    if (!is_text) {
      fields.Fail(param, absl::StrCat(param, ": this model takes parts of type \"text\" only"));
      return std::nullopt;
    }
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

void ReadMessage(const json& message, const std::string& where, FieldReader& fields,
                 ApiRequest& request) {
  if (!message.is_object()) return fields.Fail(where, absl::StrCat(where, " must be an object"));
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) {
    return fields.Fail(absl::StrCat(where, ".role"), absl::StrCat(where, ".role must be a string"));
  }
  const auto& name = role->get_ref<const std::string&>();
  if (name != "system" && name != "developer" && name != "user" && name != "assistant") {
    return fields.Fail(absl::StrCat(where, ".role"),
                       absl::StrCat(where, ".role must be system, developer, user or assistant"));
  }
  for (const char* unsupported : {"tool_calls", "function_call", "audio"}) {
    if (message.contains(unsupported) && !IsBlank(&message[unsupported])) {
      return fields.Fail(absl::StrCat(where, ".", unsupported),
                         absl::StrCat(unsupported, " is not supported by this server"));
    }
  }
  if (auto content = ContentOf(message, where, fields)) {
    request.messages.push_back({name, *std::move(content)});
  }
}

void ReadMessages(FieldReader& fields, ApiRequest& request) {
  const json* value = fields.Find("messages");
  if (value == nullptr) return fields.Fail("messages", "messages is missing");
  if (!value->is_array() || value->empty()) {
    return fields.Fail("messages", "messages must be an array of at least one message");
  }
  for (size_t i = 0; i < value->size() && !fields.error().has_value(); ++i) {
    ReadMessage((*value)[i], absl::StrCat("messages[", i, "]"), fields, request);
  }
}

// What vLLM and others hand to the template: {"enable_thinking": false} and the like.
void ReadTemplateVariables(FieldReader& fields, ApiRequest& request) {
  const json* value = fields.Find("chat_template_kwargs");
  if (value == nullptr) return;
  if (!value->is_object()) {
    return fields.Fail("chat_template_kwargs", "chat_template_kwargs must be an object");
  }
  request.template_variables = *value;
}

void RefuseUnsupportedChat(FieldReader& fields) {
  for (const char* name : {"tools", "functions", "audio", "prediction", "web_search_options"}) {
    if (!IsBlank(fields.Find(name))) return RefuseUnsupported(fields, name);
  }
  for (const char* name : {"tool_choice", "function_call"}) {
    const json* choice = fields.Find(name);
    if (choice != nullptr && *choice != "none" && *choice != "auto") {
      return RefuseUnsupported(fields, name);
    }
  }
  const json* format = fields.Find("response_format");
  if (format != nullptr && *format != json{{"type", "text"}}) {
    return fields.Fail("response_format",
                       "response_format is not supported by this server, but for "
                       "{\"type\": \"text\"}");
  }
  const json* modalities = fields.Find("modalities");
  if (modalities != nullptr && *modalities != json::array({"text"})) {
    return RefuseUnsupported(fields, "modalities");
  }
}

}  // namespace

std::string OwnerOf(absl::string_view authorization) {
  constexpr absl::string_view kScheme = "Bearer ";
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return "";
  const absl::string_view key = absl::StripAsciiWhitespace(authorization.substr(kScheme.size()));
  if (key.empty()) return "";
  const auto* bytes = reinterpret_cast<const uint8_t*>(key.data());
  return ToHex(Sha256({bytes, key.size()})).substr(0, kOwnerDigits);
}

ApiResult<ApiRequest> ParseCompletionRequest(absl::string_view body) {
  ApiResult<json> parsed = ParseRequestBody(body);
  if (auto* error = std::get_if<ApiError>(&parsed)) return std::move(*error);
  FieldReader fields(std::get<json>(parsed));
  ApiRequest request;
  ReadCommon(fields, request);
  ReadPrompts(fields, request);
  request.echo = fields.Bool("echo").value_or(false);
  if (const auto top = fields.Integer("logprobs", 0, kMaxTopLogprobs)) {
    request.logprobs = static_cast<int>(*top);
  }
  if (const auto most = fields.Integer("max_tokens", request.echo ? 0 : 1, kMaxTokens)) {
    request.max_tokens = static_cast<uint32_t>(*most);
  }
  const auto best_of = fields.Integer("best_of", 1, kMaxChoices);
  if (best_of.has_value() && static_cast<size_t>(*best_of) != request.n) {
    fields.Fail("best_of", "best_of is not supported unless it equals n");
  }
  if (!IsBlankString(fields.Find("suffix"))) RefuseUnsupported(fields, "suffix");
  return Done(fields, std::move(request));
}

ApiResult<ApiRequest> ParseChatRequest(absl::string_view body) {
  ApiResult<json> parsed = ParseRequestBody(body);
  if (auto* error = std::get_if<ApiError>(&parsed)) return std::move(*error);
  FieldReader fields(std::get<json>(parsed));
  ApiRequest request;
  request.chat = true;
  ReadCommon(fields, request);
  RefuseUnsupportedChat(fields);
  ReadMessages(fields, request);
  ReadTemplateVariables(fields, request);
  const bool logprobs = fields.Bool("logprobs").value_or(false);
  const auto top = fields.Integer("top_logprobs", 0, kMaxTopLogprobs);
  if (top.has_value() && !logprobs) {
    fields.Fail("top_logprobs", "top_logprobs is only allowed where logprobs is true");
  }
  if (logprobs) request.logprobs = static_cast<int>(top.value_or(0));
  for (const char* name : {"max_tokens", "max_completion_tokens"}) {
    if (const auto most = fields.Integer(name, 1, kMaxTokens)) {
      request.max_tokens = static_cast<uint32_t>(*most);
    }
  }
  return Done(fields, std::move(request));
}

}  // namespace efedllm
