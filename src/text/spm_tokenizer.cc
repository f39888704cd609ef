#include "text/spm_tokenizer.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "common/status_macros.h"
#include "text/utf8.h"

namespace efedllm {
namespace {

// U+2581, which stands for a space in the vocabulary.
constexpr absl::string_view kSpace = "\xe2\x96\x81";

// The first place behind `from` where a space follows something else; text.size() if there is none.
size_t WordEnd(absl::string_view text, size_t from) {
  for (size_t at = text.find(kSpace, from + 1); at != absl::string_view::npos;
       at = text.find(kSpace, at + 1)) {
    const bool behind_space =
        at >= from + kSpace.size() && text.substr(at - kSpace.size(), kSpace.size()) == kSpace;
    if (!behind_space) return at;
  }
  return text.size();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> SpmTokenizer::Create(const ModelFile& file) {
  VocabularyDefaults defaults;
  defaults.unknown = 0;
  defaults.bos = 1;
  defaults.eos = 2;
  defaults.add_bos = true;
  defaults.add_space_prefix = true;
  ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Load(file, defaults));
  auto tokenizer = std::unique_ptr<SpmTokenizer>(new SpmTokenizer(std::move(vocabulary)));
  RETURN_IF_ERROR(tokenizer->IndexBytes());
  tokenizer->words_are_separate_ = true;
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    const absl::string_view text = tokenizer->vocabulary().token(id).text;
    if (WordEnd(text, 0) != text.size()) tokenizer->words_are_separate_ = false;
  }
  return tokenizer;
}

absl::Status SpmTokenizer::IndexBytes() {
  for (size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
    int32_t& token = byte_tokens_[byte];
    token = vocabulary().Find(absl::StrFormat("<0x%02X>", byte));
    if (token < 0) token = vocabulary().Find(std::string(1, static_cast<char>(byte)));
    if (token < 0) token = vocabulary().unknown();
    if (token < 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "broken vocabulary: no token for the byte 0x%02X, and no unknown token", byte));
    }
  }
  return absl::OkStatus();
}

void SpmTokenizer::EncodeText(absl::string_view text, bool behind_special,
                              std::vector<int32_t>& tokens) const {
  const std::string escaped =
      absl::StrCat(behind_special && vocabulary().add_space_prefix() ? kSpace : "",
                   absl::StrReplaceAll(text, {{" ", kSpace}}));
  Merger merger;
  if (!words_are_separate_) {
    EncodeWord(escaped, merger, tokens);
    return;
  }
  // Merges never leave a word then, so each can be done alone: less memory, and it stays in cache.
  for (size_t begin = 0; begin < escaped.size();) {
    const size_t end = WordEnd(escaped, begin);
    EncodeWord(absl::string_view(escaped).substr(begin, end - begin), merger, tokens);
    begin = end;
  }
}

void SpmTokenizer::EncodeWord(absl::string_view word, Merger& merger,
                              std::vector<int32_t>& tokens) const {
  // Bytes that are not UTF-8 are symbols of their own, and so end as byte tokens.
  merger.Clear();
  for (absl::string_view rest = word; !rest.empty();) {
    const size_t bytes = DecodeUtf8(rest).bytes;
    merger.Append(rest.substr(0, bytes));
    rest.remove_prefix(bytes);
  }
  merger.Merge(
      [this](absl::string_view left,
             absl::string_view right) -> std::optional<MergedPair<absl::string_view, float>> {
        const absl::string_view both(left.data(), left.size() + right.size());
        if (both.size() > vocabulary().max_token_bytes()) return std::nullopt;
        const int32_t token = vocabulary().Find(both);
        if (token < 0) return std::nullopt;
        return {{both, -vocabulary().token(token).score}};
      });
  merger.ForEach([&](absl::string_view symbol) {
    const int32_t token = vocabulary().Find(symbol);
    if (token >= 0) {
      tokens.push_back(token);
      return;
    }
    for (const char byte : symbol) tokens.push_back(byte_tokens_[static_cast<uint8_t>(byte)]);
  });
}

std::string SpmTokenizer::TextOf(absl::string_view entry) const {
  return absl::StrReplaceAll(entry, {{kSpace, " "}});
}

}  // namespace efedllm
