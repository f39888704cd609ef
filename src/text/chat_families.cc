#include "text/chat_families.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "text/chat_template.h"
#include "text/python_text.h"

namespace efedllm {
namespace {

using jinja::MarkedText;
using jinja::Origin;

constexpr bool kInUser = true;
constexpr bool kOwnTurn = false;
constexpr bool kTrims = true;

// In the order in which a template's text is compared with them: the more special first.
// clang-format off
constexpr ChatFamily kFamilies[] = {
    // name, has, lacks, token, begin,
    // system, system_in_user, user, assistant, generation, trims
    {"phi-4", {"<|im_start|>", "<|im_sep|>"}, {}, "", "",
     {"<|im_start|>system<|im_sep|>", "<|im_end|>"}, kOwnTurn, {"<|im_start|>user<|im_sep|>",
     "<|im_end|>"},
     {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"}, "<|im_start|>assistant<|im_sep|>"},
    {"chatml", {"<|im_start|>", "<|im_end|>"}, {}, "<|im_start|>", "",
     {"<|im_start|>system\n", "<|im_end|>\n"}, kOwnTurn, {"<|im_start|>user\n", "<|im_end|>\n"},
     {"<|im_start|>assistant\n", "<|im_end|>\n"}, "<|im_start|>assistant\n"},
    {"llama-3", {"<|start_header_id|>", "<|eot_id|>"}, {}, "<|start_header_id|>", "{bos}",
     {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"}, kOwnTurn,
     {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
     "<|start_header_id|>assistant<|end_header_id|>\n\n", kTrims},
    {"llama-4", {"<|header_start|>", "<|eot|>"}, {}, "<|header_start|>", "{bos}",
     {"<|header_start|>system<|header_end|>\n\n", "<|eot|>"}, kOwnTurn,
     {"<|header_start|>user<|header_end|>\n\n", "<|eot|>"},
     {"<|header_start|>assistant<|header_end|>\n\n", "<|eot|>"},
     "<|header_start|>assistant<|header_end|>\n\n", kTrims},
    {"gpt-oss", {"<|start|>", "<|channel|>"}, {}, "<|channel|>", "",
     {"<|start|>developer<|message|># Instructions\n\n", "<|end|>"}, kOwnTurn,
     {"<|start|>user<|message|>", "<|end|>"},
     {"<|start|>assistant<|channel|>final<|message|>", "<|end|>"}, "<|start|>assistant"},
    {"mistral-v7", {"[INST]", "[SYSTEM_PROMPT] "}, {}, "", "{bos}",
     {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"}, kOwnTurn, {"[INST] ", "[/INST]"},
     {" ", "{eos}"}, ""},
    {"mistral-v7-tekken", {"[INST]", "[SYSTEM_PROMPT]"}, {}, "[SYSTEM_PROMPT]", "{bos}",
     {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}, kOwnTurn, {"[INST]", "[/INST]"},
     {"", "{eos}"}, ""},
    {"llama-2", {"[INST]", "<<SYS>>"}, {}, "", "",
     {"<<SYS>>\n", "\n<</SYS>>\n\n"}, kInUser, {"{bos}[INST] ", " [/INST]"},
     {" ", " {eos}"}, "", kTrims},
    {"mistral-v3-tekken", {"\"[INST]\"", "[AVAILABLE_TOOLS]"}, {}, "", "{bos}",
     {"", "\n\n"}, kInUser, {"[INST]", "[/INST]"},
     {"", "{eos}"}, ""},
    {"mistral-v3", {"\"[INST] \"", ""}, {}, "[INST]", "{bos}",
     {"", "\n\n"}, kInUser, {"[INST] ", "[/INST]"},
     {" ", "{eos}"}, ""},
    {"mistral-v1", {"[INST]", ""}, {}, "", "{bos}",
     {"", "\n\n"}, kInUser, {" [INST] ", " [/INST]"},
     {" ", "{eos}"}, ""},
    {"gemma", {"<start_of_turn>", "<end_of_turn>"}, {}, "<start_of_turn>", "{bos}",
     {"", "\n\n"}, kInUser, {"<start_of_turn>user\n", "<end_of_turn>\n"},
     {"<start_of_turn>model\n", "<end_of_turn>\n"}, "<start_of_turn>model\n", kTrims},
    {"command-r", {"<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>"}, {}, "<|START_OF_TURN_TOKEN|>",
     "{bos}",
     {"<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"}, kOwnTurn,
     {"<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"},
     {"<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"},
     "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", kTrims},
    {"granite", {"<|start_of_role|>", "<|end_of_role|>"}, {}, "<|start_of_role|>", "",
     {"<|start_of_role|>system<|end_of_role|>", "<|end_of_text|>\n"}, kOwnTurn,
     {"<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n"},
     {"<|start_of_role|>assistant<|end_of_role|>", "<|end_of_text|>\n"},
     "<|start_of_role|>assistant<|end_of_role|>"},
    {"deepseek-3", {"<｜User｜>", "<｜Assistant｜>"}, {}, "<｜User｜>", "{bos}",
     {"", ""}, kOwnTurn, {"<｜User｜>", ""},
     {"<｜Assistant｜>", "<｜end▁of▁sentence｜>"}, "<｜Assistant｜>"},
    {"deepseek-coder", {"### Instruction:", "<|EOT|>"}, {}, "", "{bos}",
     {"", ""}, kOwnTurn, {"### Instruction:\n", "\n"},
     {"### Response:\n", "\n<|EOT|>\n"}, "### Response:\n"},
    {"deepseek", {"'User: '", "Assistant:"}, {}, "", "{bos}",
     {"", "\n\n"}, kOwnTurn, {"User: ", "\n\n"},
     {"Assistant: ", "{eos}"}, "Assistant:"},
    {"alpaca", {"### Instruction:", "### Response:"}, {}, "", "{bos}",
     {"", "\n\n"}, kOwnTurn, {"### Instruction:\n", "\n\n"},
     {"### Response:\n", "{eos}\n\n"}, "### Response:\n"},
    {"exaone-3", {"[|assistant|]", "[|endofturn|]"}, {}, "[|endofturn|]", "",
     {"[|system|]", "[|endofturn|]\n"}, kOwnTurn, {"[|user|]", "\n"},
     {"[|assistant|]", "[|endofturn|]\n"}, "[|assistant|]"},
    {"glm-4", {"[gMASK]<sop>", "<|assistant|>"}, {}, "[gMASK]", "[gMASK]<sop>",
     {"<|system|>\n", ""}, kOwnTurn, {"<|user|>\n", ""},
     {"<|assistant|>\n", ""}, "<|assistant|>"},
    {"phi-4-mini", {"<|end|>", "'<|' + message['role']"}, {}, "", "",
     {"<|system|>", "<|end|>"}, kOwnTurn, {"<|user|>", "<|end|>"},
     {"<|assistant|>", "<|end|>"}, "<|assistant|>"},
    {"phi-3", {"<|assistant|>", "<|end|>"}, {}, "<|end|>", "",
     {"<|system|>\n", "<|end|>\n"}, kOwnTurn, {"<|user|>\n", "<|end|>\n"},
     {"<|assistant|>\n", "<|end|>\n"}, "<|assistant|>\n"},
    // Zephyr writes {eos} behind every turn; Tülu, OLMo 2 and Falcon 3 only behind the answer.
    {"zephyr", {"'<|user|>\n' + message['content'] + eos_token", "<|assistant|>"}, {}, "", "",
     {"<|system|>\n", "{eos}\n"}, kOwnTurn, {"<|user|>\n", "{eos}\n"},
     {"<|assistant|>\n", "{eos}\n"}, "<|assistant|>\n"},
    {"olmo-2", {"<|user|>\n", "<|assistant|>\n"}, {}, "", "{bos}",
     {"<|system|>\n", "\n"}, kOwnTurn, {"<|user|>\n", "\n"},
     {"<|assistant|>\n", "{eos}\n"}, "<|assistant|>\n"},
    {"minicpm", {"<用户>", "<AI>"}, {}, "", "",
     {"", ""}, kOwnTurn, {"<用户>", "<AI>"},
     {"", ""}, "", kTrims},
    {"openchat", {"GPT4 Correct ", "<|end_of_turn|>"}, {}, "<|end_of_turn|>", "{bos}",
     {"GPT4 Correct System: ", "<|end_of_turn|>"}, kOwnTurn, {"GPT4 Correct User: ",
     "<|end_of_turn|>"},
     {"GPT4 Correct Assistant: ", "<|end_of_turn|>"}, "GPT4 Correct Assistant:"},
    {"vicuna", {"USER: ", "ASSISTANT:"}, {}, "", "{bos}",
     {"", "\n\n"}, kOwnTurn, {"USER: ", "\n"},
     {"ASSISTANT: ", "{eos}\n"}, "ASSISTANT:"},
    {"monarch", {"bos_token + message['role']", ""}, {}, "", "",
     {"{bos}system\n", "{eos}\n"}, kOwnTurn, {"{bos}user\n", "{eos}\n"},
     {"{bos}assistant\n", "{eos}\n"}, "{bos}assistant\n"},
    {"falcon", {"'User: '", "'Falcon:"}, {}, "", "",
     {"", "\n\n"}, kOwnTurn, {"User: ", "\n"},
     {"Falcon: ", "\n"}, "Falcon:"},
    {"plain", {"{# plain #}", ""}, {}, "", "{bos}",
     {"", "\n\n"}, kOwnTurn, {"User: ", "\n\n"},
     {"Assistant: ", "\n\n"}, "Assistant:"},
};
// clang-format on

bool Fits(const ChatFamily& family, absl::string_view text) {
  const auto has = [text](absl::string_view part) { return absl::StrContains(text, part); };
  return std::all_of(std::begin(family.has), std::end(family.has), has) &&
         std::none_of(std::begin(family.lacks), std::end(family.lacks),
                      [&](absl::string_view part) { return !part.empty() && has(part); });
}

class Writer {
 public:
  explicit Writer(const ChatTokens& tokens) : tokens_(tokens) {}

  void Template(absl::string_view text) {
    out_.Append(absl::StrReplaceAll(text, {{"{bos}", tokens_.bos}, {"{eos}", tokens_.eos}}),
                Origin::kTemplate);
  }
  void Content(absl::string_view text) { out_.Append(text, Origin::kClient); }
  MarkedText Take() { return std::move(out_); }

 private:
  const ChatTokens tokens_;
  MarkedText out_;
};

}  // namespace

absl::Span<const ChatFamily> ChatFamilies() { return kFamilies; }

const ChatFamily* RecogniseChatFamily(absl::string_view template_text) {
  const std::string text = absl::StrReplaceAll(template_text, {{"\\n", "\n"}});
  for (const ChatFamily& family : kFamilies) {
    if (Fits(family, text)) return &family;
  }
  return nullptr;
}

const ChatFamily* FindChatFamily(absl::string_view name) {
  for (const ChatFamily& family : kFamilies) {
    if (family.name == name) return &family;
  }
  return nullptr;
}

MarkedText WriteChat(const ChatFamily& family, const std::vector<ChatMessage>& messages,
                     const ChatTokens& tokens, bool add_generation_prompt) {
  Writer writer(tokens);
  writer.Template(family.begin);
  const auto trimmed = [&family](absl::string_view content) {
    return family.trims ? TrimPython(content) : content;
  };
  const ChatMessage* waiting = nullptr;  // a system message, for the user's turn behind it
  for (const ChatMessage& message : messages) {
    if (message.role == "system" && family.system_in_user) {
      waiting = &message;
      continue;
    }
    const ChatFamily::Turn& turn = message.role == "system"      ? family.system
                                   : message.role == "assistant" ? family.assistant
                                                                 : family.user;
    writer.Template(turn.before);
    if (waiting != nullptr && message.role != "assistant") {
      writer.Template(family.system.before);
      writer.Content(trimmed(waiting->content));
      writer.Template(family.system.after);
      waiting = nullptr;
    }
    writer.Content(trimmed(message.content));
    writer.Template(turn.after);
  }
  if (add_generation_prompt) writer.Template(family.generation);
  return writer.Take();
}

}  // namespace efedllm
