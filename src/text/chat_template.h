// Messages -> the prompt that the model was trained on.
#ifndef EFEDLLM_TEXT_CHAT_TEMPLATE_H_
#define EFEDLLM_TEXT_CHAT_TEMPLATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "text/tokenizer.h"

namespace efedllm {

struct ChatMessage {
  std::string role;  // system, user, assistant
  std::string content;
};

// Immutable; thread-safe. No Jinja is run: a family is recognised by its template's text, and its
// rules are written here.
class ChatTemplate {
 public:
  // Recognises the family (ChatML, Llama 2, Llama 3) by the text of tokenizer.chat_template.
  // Unimplemented: no family fits; the message quotes the template's beginning. FailedPrecondition:
  // the text is empty (the model has no template).
  static absl::StatusOr<ChatTemplate> Recognise(absl::string_view template_text);

  // The prompt for Tokenizer::EncodePrompt with add_special, ending where the assistant's answer
  // begins: equal to what the Jinja template makes, without its first BOS (add_special adds that).
  // Contents are pieces that are not special, so "<|im_end|>" in a message stays plain text.
  // InvalidArgument: a role that the family doesn't have, an order of roles that it doesn't allow,
  // or no messages. The role "developer" means "system".
  absl::StatusOr<std::vector<PromptPiece>> Render(const std::vector<ChatMessage>& messages) const;

  absl::string_view family() const;  // "chatml", "llama2", "llama3"

 private:
  enum class Family { kChatMl, kLlama2, kLlama3 };
  explicit ChatTemplate(Family family) : family_(family) {}

  Family family_;
  bool trims_content_ = false;  // whitespace around a message's content goes (Llama 3 always)
  std::string default_system_;  // ChatML: the system turn where the messages have none; may be ""
  // Llama 3.1 and later: what their system turn begins with; else "". Today is the template's own
  // fallback date, not the clock's, so that the same messages are the same prompt on every day.
  std::string knowledge_dates_;
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_CHAT_TEMPLATE_H_
