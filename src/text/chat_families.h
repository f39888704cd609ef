// How the common families of chat models write a conversation, as facts: for models whose file has
// no chat template, or one that the interpreter can't run.
#ifndef EFEDLLM_TEXT_CHAT_FAMILIES_H_
#define EFEDLLM_TEXT_CHAT_FAMILIES_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "text/jinja/marked_text.h"

namespace efedllm {

struct ChatMessage;

// In the texts, {bos} and {eos} stand for the model's tokens.
struct ChatFamily {
  struct Turn {
    absl::string_view before;
    absl::string_view after;
  };
  absl::string_view name;
  // A template's text is of this family if it has all of the first and none of the second.
  absl::string_view has[2];
  absl::string_view lacks[2];
  absl::string_view token;  // one that only models of this family have; "": there is no such one
  absl::string_view begin;  // of the prompt
  Turn system;
  // Instead of a turn of its own: what stands before a system message in the user's turn that
  // follows is system.before, and between the two is system.after.
  bool system_in_user = false;
  Turn user;
  Turn assistant;
  absl::string_view generation;  // where the answer begins
  bool trims = false;            // white space around contents goes
};

// The first of the table that fits; nullptr if none does.
const ChatFamily* RecogniseChatFamily(absl::string_view template_text);
// nullptr: no such name. "plain" is what a model gets of which nothing is known.
const ChatFamily* FindChatFamily(absl::string_view name);
absl::Span<const ChatFamily> ChatFamilies();

struct ChatTokens {
  absl::string_view bos;
  absl::string_view eos;
};

// The prompt; contents are the client's. Roles: "system", "assistant", all others are the user.
jinja::MarkedText WriteChat(const ChatFamily& family, const std::vector<ChatMessage>& messages,
                            const ChatTokens& tokens, bool add_generation_prompt);

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_CHAT_FAMILIES_H_
