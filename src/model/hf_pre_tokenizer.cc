#include "model/hf_pre_tokenizer.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/hf_json.h"

namespace efedllm {
namespace {

using nlohmann::json;

#define EFEDLLM_CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define EFEDLLM_UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define EFEDLLM_LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define EFEDLLM_SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

// What SignatureOf makes of the families' pre-tokenizers: "S:" a split by an expression, "D1" and
// "D" digits alone or together, "P" punctuation, "B" and "b" the byte level with and without
// GPT-2's own expression. Each stands on a line.
struct Known {
  absl::string_view signature;
  absl::string_view name;
  absl::string_view name_if_ignore_merges;  // empty: the same
};

const Known kKnown[] = {
    {"B\n", "gpt-2", ""},
    {"S:'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+\nb\n",
     "gpt-2", ""},
    {"D1\nB\n", "smollm", ""},
    {"P\nB\nD\nS:[0-9][0-9][0-9]\n", "falcon", ""},
    {"S:" EFEDLLM_CONTRACTIONS
     "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" EFEDLLM_SPACES
     "\nb\n",
     "smaug-bpe", "llama-bpe"},
    {"S:'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+\nb\n",
     "smaug-bpe", "llama-bpe"},
    {"S:" EFEDLLM_CONTRACTIONS
     "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" EFEDLLM_SPACES "\nb\n",
     "qwen2", ""},
    {"S:[^\\r\\n\\p{L}\\p{N}]?" EFEDLLM_UPPER "*" EFEDLLM_LOWER
     "+|[^\\r\\n\\p{L}\\p{N}]?" EFEDLLM_UPPER "+" EFEDLLM_LOWER
     "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" EFEDLLM_SPACES "\nb\n",
     "tekken", ""},
    {"S:[^\\r\\n\\p{L}\\p{N}]?" EFEDLLM_UPPER "*" EFEDLLM_LOWER "+" EFEDLLM_CONTRACTIONS
     "?|[^\\r\\n\\p{L}\\p{N}]?" EFEDLLM_UPPER "+" EFEDLLM_LOWER "*" EFEDLLM_CONTRACTIONS
     "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" EFEDLLM_SPACES "\nb\n",
     "gpt-4o", ""},
    {"S:\\p{N}{1,3}\nS:[一-龥぀-ゟ゠-ヿ]+\nS:[!\"#$%&'()*+,\\-./"
     ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
     "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" EFEDLLM_SPACES
     "\nb\n",
     "deepseek-v3", ""},
    {"S:[\\r\\n]\nS:\\s?\\p{L}+\nS:\\s?\\p{P}+\nS:[一-龥ࠀ-一가-퟿]+\nD1\nb\n",
     "deepseek-coder", ""},
};

#undef EFEDLLM_CONTRACTIONS
#undef EFEDLLM_UPPER
#undef EFEDLLM_LOWER
#undef EFEDLLM_SPACES

// DeepSeek LLM lists all letters that have a case; the beginnings of its expressions are enough.
bool IsDeepSeekLlm(absl::string_view signature) {
  return absl::StartsWith(signature, "S:[\\r\\n]\nS:\\s?[A-Za-z") &&
         absl::StrContains(signature, "\nS:\\s?[!-/:-~") &&
         absl::StrContains(signature, "\nS:\\s+$\n") && absl::EndsWith(signature, "\nb\n");
}

// Some files have the control characters themselves in an expression.
std::string WithEscapes(absl::string_view expression) {
  std::string escaped;
  for (const char c : expression) {
    if (c == '\r') {
      escaped += "\\r";
    } else if (c == '\n') {
      escaped += "\\n";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

absl::Status Unsupported(absl::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat("pre-tokenizer ", Printable(what, 400), " is not supported"));
}

absl::StatusOr<std::string> SignatureOfSplit(const json& step) {
  const json* pattern = FindJson(step, "pattern");
  const json* regex = pattern == nullptr ? nullptr : FindJson(*pattern, "Regex");
  ASSIGN_OR_RETURN(const std::string behavior, JsonStringOr(step, "behavior", ""));
  ASSIGN_OR_RETURN(const bool invert, JsonBoolOr(step, "invert", false));
  // "Removed", inverted, keeps the matches: the same where an expression matches everything.
  const bool isolates = behavior == (invert ? "Removed" : "Isolated");
  if (regex == nullptr || !regex->is_string() || !isolates) {
    return Unsupported(step.dump(-1, ' ', false, json::error_handler_t::replace));
  }
  return absl::StrCat("S:", WithEscapes(regex->get_ref<const std::string&>()), "\n");
}

absl::StatusOr<std::string> SignatureOfStep(const json& step) {
  ASSIGN_OR_RETURN(const std::string type, JsonStringOr(step, "type", ""));
  if (type == "Split") return SignatureOfSplit(step);
  if (type == "Digits") {
    ASSIGN_OR_RETURN(const bool alone, JsonBoolOr(step, "individual_digits", false));
    return std::string(alone ? "D1\n" : "D\n");
  }
  if (type == "Punctuation") {
    ASSIGN_OR_RETURN(const std::string behavior, JsonStringOr(step, "behavior", "Isolated"));
    if (behavior == "Contiguous") return std::string("P\n");
  }
  if (type == "ByteLevel") {
    ASSIGN_OR_RETURN(const bool prefix, JsonBoolOr(step, "add_prefix_space", true));
    ASSIGN_OR_RETURN(const bool regex, JsonBoolOr(step, "use_regex", true));
    if (!prefix) return std::string(regex ? "B\n" : "b\n");
  }
  return Unsupported(step.dump(-1, ' ', false, json::error_handler_t::replace));
}

}  // namespace

absl::StatusOr<absl::string_view> RecognisePreTokenizer(const json& pre_tokenizer,
                                                        bool ignore_merges) {
  std::string signature;
  const json* steps = FindJson(pre_tokenizer, "pretokenizers");
  if (steps != nullptr && steps->is_array()) {
    for (const json& step : *steps) {
      ASSIGN_OR_RETURN(const std::string part, SignatureOfStep(step));
      signature += part;
    }
  } else {
    ASSIGN_OR_RETURN(signature, SignatureOfStep(pre_tokenizer));
  }
  for (const Known& known : kKnown) {
    if (known.signature != signature) continue;
    const bool other = ignore_merges && !known.name_if_ignore_merges.empty();
    return other ? known.name_if_ignore_merges : known.name;
  }
  if (IsDeepSeekLlm(signature)) return absl::string_view("deepseek-llm");
  return Unsupported(signature);
}

}  // namespace efedllm
