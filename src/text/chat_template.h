// Messages -> the prompt that the model was trained on.
#ifndef EFEDLLM_TEXT_CHAT_TEMPLATE_H_
#define EFEDLLM_TEXT_CHAT_TEMPLATE_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "model/model_file.h"
#include "text/chat_families.h"
#include "text/jinja/template.h"
#include "text/tokenizer.h"

namespace efedllm {

struct ChatMessage {
  std::string role;  // system (or developer), user, assistant, tool
  std::string content;
};

struct ChatOptions {
  bool add_generation_prompt = true;  // the prompt ends where the assistant's answer begins
  absl::Time now = absl::Now();       // for templates that tell the date
  // An object: more variables for the template, such as "tools" or "enable_thinking". A built-in
  // family knows none. Their strings count as the client's.
  nlohmann::ordered_json variables;
};

// Immutable; thread-safe.
class ChatTemplate {
 public:
  // template_text: the file's tokenizer.chat_template, which is interpreted. The family that its
  // text belongs to stands in where the interpreter can't run it. An empty text: the family by the
  // model's special tokens, else "plain". A family's name instead of a text is that family.
  // Unimplemented: a template beyond the interpreter, of no known family; says the line and why.
  static absl::StatusOr<ChatTemplate> Create(absl::string_view template_text,
                                             const Tokenizer& tokenizer);
  // The same for a model's file.
  static absl::StatusOr<ChatTemplate> ForModel(const ModelFile& file, const Tokenizer& tokenizer);

  // The prompt for Tokenizer::EncodePrompt with add_special: without its first BOS where that adds
  // one. What a client wrote, in messages and variables, is in pieces that are not special, so that
  // "<|im_end|>" in a message stays plain text, whatever the template does to it.
  // A system message goes into the user's behind it where the template has no place for it.
  // InvalidArgument: no messages, a role that none has, or what the template refuses.
  absl::StatusOr<std::vector<PromptPiece>> Render(const std::vector<ChatMessage>& messages,
                                                  const ChatOptions& options = {}) const;

  // "chatml", "llama-3" ...; "interpreted" for a template of no family that we know.
  absl::string_view family() const { return family_ == nullptr ? "interpreted" : family_->name; }
  // Whether the model's own template runs, rather than the family's.
  bool is_interpreted() const { return template_.has_value(); }

 private:
  ChatTemplate() = default;
  absl::StatusOr<jinja::MarkedText> Interpret(const std::vector<ChatMessage>& messages,
                                              const ChatOptions& options) const;
  // Finds out what the template makes of messages.
  absl::Status Probe();

  const ChatFamily* family_ = nullptr;
  std::optional<jinja::Template> template_;
  std::string bos_;
  std::string eos_;
  bool tokenizer_adds_bos_ = false;
  bool knows_developer_ = false;  // a role that is the system's elsewhere
  bool wants_parts_ = false;      // contents as [{"type": "text", "text": ...}]
  bool has_system_ = true;
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_CHAT_TEMPLATE_H_
