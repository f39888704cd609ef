// Messages -> the prompt that the model was trained on.
#ifndef EFEDLLM_TEXT_CHAT_TEMPLATE_H_
#define EFEDLLM_TEXT_CHAT_TEMPLATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace efedllm {

struct ChatMessage {
  std::string role;  // system, user, assistant
  std::string content;
};

// Immutable; thread-safe.
class ChatTemplate {
 public:
  // Recognises the family (ChatML, Llama 2, Llama 3) by the text of tokenizer.chat_template.
  // Unimplemented: no family fits; the message quotes the template's beginning. FailedPrecondition:
  // the text is empty (the model has no template).
  static absl::StatusOr<ChatTemplate> Recognise(absl::string_view template_text);

  // The prompt, to be tokenized with parse_special, ending where the assistant's answer begins. BOS
  // is not in it, except where the family repeats it between turns. InvalidArgument: a role that
  // the family doesn't have, or no messages.
  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages) const;

  absl::string_view family() const;  // "chatml", "llama2", "llama3"

 private:
  enum class Family { kChatMl, kLlama2, kLlama3 };
  explicit ChatTemplate(Family family) : family_(family) {}

  Family family_;
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_CHAT_TEMPLATE_H_
