#include "text/pre_tokenizer.h"

#include "absl/strings/str_join.h"
#include "text/split_rules.h"
#include "text/utf8.h"

namespace efedllm {
namespace {

constexpr SplitRule kDefault[] = {FindPunctuation, FindGpt2Word, FindNumber, FindThreeAsciiDigits};
constexpr SplitRule kGpt2[] = {FindGpt2Word};
constexpr SplitRule kDigitsAlone[] = {FindDigit, FindGpt2Word};
constexpr SplitRule kFalcon[] = {FindPunctuationFalcon, FindGpt2Word, FindThreeAsciiDigits};
constexpr SplitRule kLlama3[] = {FindLlama3Word};
constexpr SplitRule kQwen2[] = {FindQwen2Word};
constexpr SplitRule kTekken[] = {FindTekkenWord};
constexpr SplitRule kGpt4o[] = {FindGpt4oWord};
constexpr SplitRule kDeepSeekLlm[] = {FindNewline,         FindSpacedCasedLetters,
                                      FindSpacedAsciiLike, FindTrailingSpaces,
                                      FindCjkAndHangul,    FindNumber};
constexpr SplitRule kDeepSeekCoder[] = {FindNewline, FindSpacedLetters, FindSpacedPunctuation,
                                        FindCjkAndHangul, FindDigit};
constexpr SplitRule kDeepSeek3[] = {FindUpToThreeDigits, FindCjkAndKana, FindDeepSeek3Word};

struct Family {
  absl::string_view name;
  PreTokenizer pre_tokenizer;
};

constexpr bool kYes = true;
constexpr bool kNo = false;

const Family kFamilies[] = {
    // rules, ignore_merges, add_bos, clean_spaces
    {"default", {kDefault, kNo, kNo, kYes}},
    {"gpt-2", {kGpt2, kNo, kNo, kYes}},
    {"phi-2", {kGpt2, kNo, kNo, kYes}},
    {"mpt", {kGpt2, kNo, kNo, kYes}},
    {"olmo", {kGpt2, kNo, kNo, kYes}},
    {"jais", {kGpt2, kNo, kNo, kYes}},
    {"exaone4", {kGpt2, kNo, kNo, kYes}},
    {"trillion", {kGpt2, kNo, kNo, kNo}},
    {"granite-docling", {kGpt2, kNo, kNo, kNo}},
    {"starcoder", {kDigitsAlone, kNo, kNo, kYes}},
    {"refact", {kDigitsAlone, kNo, kNo, kYes}},
    {"codeshell", {kDigitsAlone, kNo, kNo, kYes}},
    {"exaone", {kDigitsAlone, kNo, kNo, kYes}},
    {"minerva-7b", {kDigitsAlone, kNo, kNo, kYes}},
    {"command-r", {kDigitsAlone, kNo, kNo, kNo}},
    {"smollm", {kDigitsAlone, kNo, kNo, kNo}},
    {"falcon", {kFalcon, kNo, kNo, kYes}},
    {"llama-bpe", {kLlama3, kYes, kYes, kYes}},
    {"llama3", {kLlama3, kYes, kYes, kYes}},
    {"llama-v3", {kLlama3, kYes, kYes, kYes}},
    {"falcon3", {kLlama3, kYes, kYes, kYes}},
    {"falcon-h1", {kLlama3, kYes, kYes, kYes}},
    {"pixtral", {kLlama3, kYes, kYes, kYes}},
    {"lfm2", {kLlama3, kYes, kYes, kYes}},
    {"dbrx", {kLlama3, kNo, kNo, kYes}},
    {"smaug-bpe", {kLlama3, kNo, kNo, kYes}},
    {"qwen2", {kQwen2, kNo, kNo, kNo}},
    {"deepseek-r1-qwen", {kQwen2, kNo, kNo, kNo}},
    {"hunyuan", {kQwen2, kNo, kNo, kNo}},
    {"grok-2", {kQwen2, kNo, kNo, kNo}},
    {"stablelm2", {kQwen2, kNo, kNo, kYes}},
    {"megrez", {kQwen2, kNo, kNo, kYes}},
    {"tekken", {kTekken, kYes, kYes, kNo}},
    {"gpt-4o", {kGpt4o, kNo, kNo, kNo}},
    {"llama4", {kGpt4o, kNo, kNo, kNo}},
    {"minimax-m2", {kGpt4o, kNo, kNo, kNo}},
    {"deepseek-llm", {kDeepSeekLlm, kNo, kNo, kNo}},
    {"deepseek-coder", {kDeepSeekCoder, kNo, kNo, kNo}},
    {"deepseek-v3", {kDeepSeek3, kNo, kNo, kNo}},
    {"hunyuan-dense", {kDeepSeek3, kNo, kNo, kNo}},
};

// The surrogate that a text begins with, encoded as if it were a character. 0: it doesn't.
char32_t SurrogateAt(absl::string_view text) {
  if (text.size() < 3 || text[0] != '\xed') return 0;
  const uint8_t second = static_cast<uint8_t>(text[1]);
  const uint8_t third = static_cast<uint8_t>(text[2]);
  if (second < 0xa0 || second > 0xbf || third < 0x80 || third > 0xbf) return 0;
  return 0xd000 | (second & 0x3fU) << 6 | (third & 0x3fU);
}

}  // namespace

Characters::Characters(absl::string_view text) {
  bytes_.reserve(text.size());
  byte_begins_.reserve(text.size() + 1);
  code_points_.reserve(text.size());
  classes_.reserve(text.size());
  while (!text.empty()) {
    size_t bytes = 1;
    if (const Utf8Char c = DecodeUtf8(text); c.kind == Utf8Char::Kind::kValid) {
      bytes = c.bytes;
      Append(text.substr(0, bytes), c.code_point);
    } else if (const char32_t surrogate = SurrogateAt(text); surrogate != 0) {
      bytes = 3;
      Append(text.substr(0, bytes), surrogate);
    } else {
      Append("\xef\xbf\xbd", 0xfffd);
    }
    text.remove_prefix(bytes);
  }
  byte_begins_.push_back(bytes_.size());
}

void Characters::Append(absl::string_view bytes, char32_t code_point) {
  byte_begins_.push_back(bytes_.size());
  bytes_.append(bytes.data(), bytes.size());
  code_points_.push_back(code_point);
  classes_.push_back(ClassOf(code_point));
}

std::vector<size_t> PreTokenizer::WordEnds(const Characters& text) const {
  std::vector<size_t> ends;
  if (text.size() > 0) ends.push_back(text.size());
  std::vector<size_t> parts;
  for (const SplitRule rule : rules) {
    parts.clear();
    size_t at = 0;
    for (const size_t end : ends) {
      while (at < end) {
        const CharRange word = rule(text, at, end);
        if (word.begin > at) parts.push_back(word.begin);
        if (word.end > word.begin) parts.push_back(word.end);
        at = word.end;
      }
    }
    ends.swap(parts);
  }
  return ends;
}

const PreTokenizer* FindPreTokenizer(absl::string_view name) {
  for (const Family& family : kFamilies) {
    if (family.name == (name.empty() ? "default" : name)) return &family.pre_tokenizer;
  }
  return nullptr;
}

std::string PreTokenizerNames() {
  return absl::StrJoin(kFamilies, ", ", [](std::string* out, const Family& family) {
    out->append(family.name.data(), family.name.size());
  });
}

}  // namespace efedllm
