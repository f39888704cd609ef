#include "text/chat_template.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"
#include "text/jinja/from_json.h"
#include "text/python_text.h"

namespace efedllm {
namespace {

using jinja::MarkedText;
using jinja::Origin;
using jinja::Runtime;
using jinja::Value;

// A template copies a message a few times on its way.
constexpr size_t kMemoryPerInputByte = 64;

Value DictOf(std::vector<std::pair<absl::string_view, Value>> entries, Runtime& runtime) {
  jinja::Dict* dict = runtime.NewDict();
  for (const auto& [name, value] : entries) {
    dict->entries.emplace_back(runtime.String(std::string(name)), value);
  }
  return dict;
}

// A role is one of ours (see CheckedMessages), so it may be part of a special token: "<|user|>".
Value ValueOf(const ChatMessage& message, bool as_parts, Runtime& runtime) {
  Value content = runtime.String(MarkedText(message.content, Origin::kClient));
  if (as_parts) {
    content =
        runtime.NewList({DictOf({{"type", runtime.String("text")}, {"text", content}}, runtime)});
  }
  return DictOf({{"role", runtime.String(message.role)}, {"content", content}}, runtime);
}

absl::StatusOr<std::vector<ChatMessage>> CheckedMessages(const std::vector<ChatMessage>& messages,
                                                         bool knows_developer) {
  if (messages.empty()) return absl::InvalidArgumentError("messages: at least one is needed");
  std::vector<ChatMessage> checked = messages;
  for (ChatMessage& message : checked) {
    if (message.role == "developer" && !knows_developer) message.role = "system";
    constexpr absl::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool"};
    if (std::find(std::begin(kRoles), std::end(kRoles), message.role) == std::end(kRoles)) {
      return absl::InvalidArgumentError(absl::StrCat("messages: there is no role \"",
                                                     Printable(message.role),
                                                     "\"; there are system, user and assistant"));
    }
  }
  return checked;
}

// Each system message goes to the head of the user's message behind it.
std::vector<ChatMessage> WithoutSystem(const std::vector<ChatMessage>& messages) {
  std::vector<ChatMessage> merged;
  std::string waiting;
  for (const ChatMessage& message : messages) {
    if (message.role == "system") {
      absl::StrAppend(&waiting, message.content, "\n\n");
      continue;
    }
    merged.push_back(message);
    if (message.role == "user") merged.back().content.insert(0, std::exchange(waiting, ""));
  }
  if (!waiting.empty()) merged.push_back({"user", std::string(TrimPythonEnd(waiting))});
  return merged;
}

// The family of which the vocabulary has the special token that no other has.
const ChatFamily* FamilyByTokens(const Tokenizer& tokenizer) {
  for (const ChatFamily& family : ChatFamilies()) {
    if (family.token.empty()) continue;
    const auto as_special = tokenizer.Encode(family.token, {false, /*parse_special=*/true});
    const auto as_text = tokenizer.Encode(family.token, {false, /*parse_special=*/false});
    if (as_special.size() == 1 && as_text != as_special) return &family;
  }
  return FindChatFamily("plain");
}

std::vector<PromptPiece> PiecesOf(const MarkedText& text, size_t begin) {
  std::vector<PromptPiece> pieces;
  text.ForEachRun(begin, text.size(), [&pieces](absl::string_view run, Origin origin) {
    pieces.push_back({std::string(run), origin == Origin::kTemplate});
  });
  return pieces;
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Create(absl::string_view template_text,
                                                  const Tokenizer& tokenizer) {
  ChatTemplate chat;
  chat.bos_ = tokenizer.Piece(tokenizer.bos(), /*special=*/true);
  chat.eos_ = tokenizer.Piece(tokenizer.eos(), /*special=*/true);
  const std::vector<int32_t> added = tokenizer.Encode("", {.add_special = true});
  chat.tokenizer_adds_bos_ = !added.empty() && added.front() == tokenizer.bos();
  if (TrimPython(template_text).empty()) {
    chat.family_ = FamilyByTokens(tokenizer);
    return chat;
  }
  chat.family_ = FindChatFamily(template_text);
  if (chat.family_ != nullptr) return chat;

  chat.family_ = RecogniseChatFamily(template_text);
  chat.knows_developer_ = absl::StrContains(template_text, "developer");
  absl::StatusOr<jinja::Template> parsed = jinja::Template::Parse(template_text);
  absl::Status problem = parsed.status();
  if (parsed.ok()) {
    chat.template_ = *std::move(parsed);
    problem = chat.Probe();
    if (problem.ok() || chat.family_ == nullptr) return chat;
    chat.template_.reset();
  }
  if (chat.family_ == nullptr) {
    return absl::UnimplementedError(absl::StrCat(
        "the model's chat template can't be run: ", problem.message(),
        ", and it is of no family that we know. It begins: \"", Printable(template_text, 100),
        "\". /v1/completions works without a template"));
  }
  spdlog::warn("the model's chat template can't be run ({}); the family {} stands in",
               std::string(problem.message()), std::string(chat.family_->name));
  return chat;
}

absl::StatusOr<ChatTemplate> ChatTemplate::ForModel(const ModelFile& file,
                                                    const Tokenizer& tokenizer) {
  const auto text = file.GetString("tokenizer.chat_template");
  return Create(text.ok() ? *text : absl::string_view(), tokenizer);
}

absl::Status ChatTemplate::Probe() {
  const std::string mark = "a probe";
  const auto shows_mark = [&](const std::vector<ChatMessage>& messages) {
    const auto text = Interpret(messages, {});
    return text.ok() && absl::StrContains(text->bytes(), mark);
  };
  const std::vector<ChatMessage> user = {{"user", mark}};
  if (!shows_mark(user)) {
    wants_parts_ = true;
    wants_parts_ = shows_mark(user);
  }
  has_system_ = shows_mark({{"system", mark}, {"user", "x"}});
  return Interpret(user, {}).status();
}

absl::StatusOr<MarkedText> ChatTemplate::Interpret(const std::vector<ChatMessage>& messages,
                                                   const ChatOptions& options) const {
  size_t input = 0;
  for (const ChatMessage& message : messages) input += message.content.size() + 64;
  jinja::RenderLimits limits;
  limits.memory_bytes += kMemoryPerInputByte * input;
  Runtime runtime(limits, options.now);
  jinja::Variables variables;
  for (const auto& [name, json] : options.variables.items()) {
    ASSIGN_OR_RETURN(const Value value, jinja::FromJson(json, Origin::kClient, runtime));
    variables.emplace_back(runtime.String(name).bytes(), value);
  }
  std::vector<Value> list;
  list.reserve(messages.size());
  for (const ChatMessage& message : messages) {
    list.push_back(ValueOf(message, wants_parts_, runtime));
  }
  // Ours come last and so win over a client's.
  variables.emplace_back("messages", runtime.NewList(std::move(list)));
  variables.emplace_back("add_generation_prompt", options.add_generation_prompt);
  variables.emplace_back("bos_token", runtime.String(bos_));
  variables.emplace_back("eos_token", runtime.String(eos_));
  return template_->Render(variables, runtime);
}

absl::StatusOr<std::vector<PromptPiece>> ChatTemplate::Render(
    const std::vector<ChatMessage>& messages, const ChatOptions& options) const {
  ASSIGN_OR_RETURN(std::vector<ChatMessage> checked, CheckedMessages(messages, knows_developer_));
  MarkedText prompt;
  if (!template_.has_value()) {
    prompt = WriteChat(*family_, checked, {bos_, eos_}, options.add_generation_prompt);
  } else {
    if (!has_system_) checked = WithoutSystem(checked);
    absl::StatusOr<MarkedText> interpreted = Interpret(checked, options);
    if (!interpreted.ok()) {
      return absl::Status(interpreted.status().code(),
                          absl::StrCat("messages: the model's chat template refuses them: ",
                                       interpreted.status().message()));
    }
    prompt = *std::move(interpreted);
  }
  const bool drops_bos =
      tokenizer_adds_bos_ && !bos_.empty() && absl::StartsWith(prompt.bytes(), bos_);
  std::vector<PromptPiece> pieces = PiecesOf(prompt, 0);
  if (drops_bos && pieces.front().special) pieces = PiecesOf(prompt, bos_.size());
  return pieces;
}

}  // namespace efedllm
