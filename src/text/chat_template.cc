#include "text/chat_template.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "text/utf8.h"

namespace efedllm {
namespace {

// Python's str.isspace, which is what Jinja's trim and strip() go by.
bool IsPythonSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

absl::string_view TrimStart(absl::string_view text) {
  while (!text.empty()) {
    const Utf8Char c = DecodeUtf8(text);
    if (!IsPythonSpace(c.code_point)) break;
    text.remove_prefix(c.bytes);
  }
  return text;
}

absl::string_view TrimEnd(absl::string_view text) {
  while (!text.empty()) {
    size_t begin = text.size() - 1;  // of the last character
    while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xc0) == 0x80) --begin;
    const Utf8Char c = DecodeUtf8(text.substr(begin));
    if (begin + c.bytes != text.size() || !IsPythonSpace(c.code_point)) break;
    text.remove_suffix(c.bytes);
  }
  return text;
}

absl::string_view Trim(absl::string_view text) { return TrimEnd(TrimStart(text)); }

// What stands between `open` and `close` where that is plain text, not template code.
std::optional<std::string> LiteralBetween(absl::string_view text, absl::string_view open,
                                          absl::string_view close) {
  for (size_t at = text.find(open); at != absl::string_view::npos; at = text.find(open, at + 1)) {
    const absl::string_view rest = text.substr(at + open.size());
    const absl::string_view literal = rest.substr(0, rest.find(close));
    const bool has_code = absl::StrContains(literal, "{") || absl::StrContains(literal, "'") ||
                          absl::StrContains(literal, "\"");
    if (literal.size() < rest.size() && !has_code) return std::string(literal);
  }
  return std::nullopt;
}

bool TrimsContent(absl::string_view text) {
  const std::string dense = absl::StrReplaceAll(text, {{" ", ""}});
  return absl::StrContains(dense, "content']|trim") ||
         absl::StrContains(dense, "content\"]|trim") || absl::StrContains(dense, "content|trim") ||
         absl::StrContains(dense, "content'].strip()") ||
         absl::StrContains(dense, "content.strip()");
}

absl::Status UnknownTemplate(absl::string_view text, absl::string_view why) {
  return absl::UnimplementedError(
      absl::StrCat("the model's chat template is not supported (", why,
                   "); supported are ChatML, Llama 2 and Llama 3. It begins: \"",
                   Printable(text, 100), "\". /v1/completions works without a template"));
}

// Grows a prompt; neighbours of one kind become one piece.
class PromptBuilder {
 public:
  void Template(absl::string_view text) { Append(text, true); }
  void Content(absl::string_view text) { Append(text, false); }
  std::vector<PromptPiece> Take() { return std::move(pieces_); }

 private:
  void Append(absl::string_view text, bool special) {
    if (text.empty()) return;
    if (pieces_.empty() || pieces_.back().special != special) pieces_.push_back({"", special});
    pieces_.back().text.append(text.data(), text.size());
  }

  std::vector<PromptPiece> pieces_;
};

// The messages with roles that all families know.
absl::StatusOr<std::vector<ChatMessage>> CheckedMessages(const std::vector<ChatMessage>& messages) {
  if (messages.empty()) return absl::InvalidArgumentError("messages: at least one is needed");
  std::vector<ChatMessage> checked = messages;
  for (ChatMessage& message : checked) {
    if (message.role == "developer") message.role = "system";  // OpenAI's newer name
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      return absl::InvalidArgumentError(
          absl::StrCat("messages: this model's chat template has no role \"",
                       Printable(message.role), "\"; it has system, user and assistant"));
    }
  }
  return checked;
}

std::vector<PromptPiece> RenderChatMl(const std::vector<ChatMessage>& messages,
                                      absl::string_view default_system, bool trims_content) {
  PromptBuilder prompt;
  const auto turn = [&prompt](absl::string_view role, absl::string_view content) {
    prompt.Template(absl::StrCat("<|im_start|>", role, "\n"));
    prompt.Content(content);
    prompt.Template("<|im_end|>\n");
  };
  if (!default_system.empty() && messages[0].role != "system") turn("system", default_system);
  for (const ChatMessage& message : messages) {
    turn(message.role, trims_content ? Trim(message.content) : message.content);
  }
  prompt.Template("<|im_start|>assistant\n");
  return prompt.Take();
}

std::vector<PromptPiece> RenderLlama3(const std::vector<ChatMessage>& messages,
                                      absl::string_view knowledge_dates) {
  PromptBuilder prompt;
  const auto header = [&prompt](absl::string_view role) {
    prompt.Template(absl::StrCat("<|start_header_id|>", role, "<|end_header_id|>\n\n"));
  };
  absl::Span<const ChatMessage> rest(messages);
  if (!knowledge_dates.empty()) {
    header("system");
    prompt.Template(knowledge_dates);
    if (rest.front().role == "system") {
      prompt.Content(Trim(rest.front().content));
      rest.remove_prefix(1);
    }
    prompt.Template("<|eot_id|>");
  }
  for (const ChatMessage& message : rest) {
    header(message.role);
    prompt.Content(Trim(message.content));
    prompt.Template("<|eot_id|>");
  }
  header("assistant");
  return prompt.Take();
}

// "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST] {assistant} </s><s>[INST] {user} [/INST]"
absl::StatusOr<std::vector<PromptPiece>> RenderLlama2(const std::vector<ChatMessage>& messages,
                                                      bool trims_content) {
  PromptBuilder prompt;
  const auto content = [&prompt, trims_content](absl::string_view text) {
    prompt.Content(trims_content ? Trim(text) : text);
  };
  absl::Span<const ChatMessage> turns(messages);
  const bool has_system = turns.front().role == "system";
  if (has_system) turns.remove_prefix(1);
  if (turns.empty()) {
    return absl::InvalidArgumentError("messages: a user's message is needed after the system's");
  }
  for (size_t i = 0; i < turns.size(); ++i) {
    const absl::string_view expected = i % 2 == 0 ? "user" : "assistant";
    if (turns[i].role != expected) {
      return absl::InvalidArgumentError(
          "messages: with this model, user and assistant must take turns, the user first, and "
          "only the first message can be the system's");
    }
    if (expected == "assistant") {
      prompt.Template(" ");
      content(turns[i].content);
      prompt.Template(" </s>");
      continue;
    }
    prompt.Template(i == 0 ? "[INST] " : "<s>[INST] ");
    if (i == 0 && has_system) {
      // The template trims all of this as one text, so white space inside it stays.
      const absl::string_view user = trims_content ? TrimEnd(turns[i].content) : turns[i].content;
      prompt.Template("<<SYS>>\n");
      prompt.Content(messages[0].content);
      prompt.Template(user.empty() && trims_content ? "\n<</SYS>>" : "\n<</SYS>>\n\n");
      prompt.Content(user);
    } else {
      content(turns[i].content);
    }
    prompt.Template(" [/INST]");
  }
  if (turns.size() % 2 == 0) prompt.Template("<s>");
  return prompt.Take();
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Recognise(absl::string_view template_text) {
  if (Trim(template_text).empty()) {
    return absl::FailedPreconditionError(
        "the model has no chat template (tokenizer.chat_template); use /v1/completions");
  }
  const std::string text = absl::StrReplaceAll(template_text, {{"\\n", "\n"}});
  const auto has = [&text](absl::string_view part) { return absl::StrContains(text, part); };
  if (has("<|im_start|>") && has("<|im_end|>") && !has("<|im_sep|>")) {
    ChatTemplate chatml(Family::kChatMl);
    chatml.trims_content_ = TrimsContent(text);
    chatml.default_system_ =
        LiteralBetween(text, "<|im_start|>system\n", "<|im_end|>").value_or("");
    return chatml;
  }
  if (has("<|start_header_id|>") && has("<|end_header_id|>") && has("<|eot_id|>")) {
    ChatTemplate llama3(Family::kLlama3);
    llama3.trims_content_ = true;
    if (!has("Cutting Knowledge Date")) return llama3;
    const auto cutting = LiteralBetween(text, "Cutting Knowledge Date: ", "\n");
    auto today = LiteralBetween(text, "date_string = \"", "\"");
    if (!today.has_value()) today = LiteralBetween(text, "date_string = '", "'");
    if (!cutting.has_value() || !today.has_value()) {
      return UnknownTemplate(template_text, "Llama 3 with dates that can't be read");
    }
    llama3.knowledge_dates_ =
        absl::StrCat("Cutting Knowledge Date: ", *cutting, "\nToday Date: ", *today, "\n\n");
    return llama3;
  }
  if (has("[INST]") && has("<<SYS>>")) {
    // Early conversions of Llama 2 put a long system prompt in where the client gives none.
    if (has("true == true")) {
      return UnknownTemplate(template_text, "Llama 2 with a system prompt of its own");
    }
    ChatTemplate llama2(Family::kLlama2);
    llama2.trims_content_ = TrimsContent(text);
    return llama2;
  }
  return UnknownTemplate(template_text, "no known family");
}

absl::StatusOr<std::vector<PromptPiece>> ChatTemplate::Render(
    const std::vector<ChatMessage>& messages) const {
  ASSIGN_OR_RETURN(const std::vector<ChatMessage> checked, CheckedMessages(messages));
  switch (family_) {
    case Family::kChatMl:
      return RenderChatMl(checked, default_system_, trims_content_);
    case Family::kLlama2:
      return RenderLlama2(checked, trims_content_);
    case Family::kLlama3:
      return RenderLlama3(checked, knowledge_dates_);
  }
  return absl::InternalError("unknown chat template family");
}

absl::string_view ChatTemplate::family() const {
  switch (family_) {
    case Family::kChatMl:
      return "chatml";
    case Family::kLlama2:
      return "llama2";
    case Family::kLlama3:
      return "llama3";
  }
  return "";
}

}  // namespace efedllm
