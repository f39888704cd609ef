#include "text/bpe_tokenizer.h"

#include <limits>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "text/utf8.h"

namespace efedllm {
namespace {

// Vocabularies write each byte as a printable character: itself if it is one in Latin-1, else the
// next from U+0100 on.
std::array<char32_t, 256> CharacterOfByte() {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool is_printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
    characters[byte] = is_printable ? byte : next++;
  }
  return characters;
}

std::string WriteBytes(absl::string_view bytes) {
  static const std::array<char32_t, 256> characters = CharacterOfByte();
  std::string written;
  for (const char byte : bytes) written += EncodeUtf8(characters[static_cast<uint8_t>(byte)]);
  return written;
}

std::optional<char> ByteOf(char32_t character) {
  static const auto bytes = [] {
    absl::flat_hash_map<char32_t, char> map;
    const std::array<char32_t, 256> characters = CharacterOfByte();
    for (size_t byte = 0; byte < 256; ++byte) map[characters[byte]] = static_cast<char>(byte);
    return map;
  }();
  const auto found = bytes.find(character);
  if (found == bytes.end()) return std::nullopt;
  return found->second;
}

// The habit of older families, as llama.cpp copies it: no space before punctuation and some
// contractions, none around a lone apostrophe.
std::string CleanSpaces(absl::string_view text) {
  std::string closed;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool closes = absl::string_view("?!.,").find(text[i]) != absl::string_view::npos;
    if (closes && i > 0 && text[i - 1] == ' ') closed.pop_back();
    closed += text[i];
  }

  std::string quoted;
  bool is_free = false;  // the character before is a space that no apostrophe has taken
  for (size_t i = 0; i < closed.size(); ++i) {
    const bool is_lone =
        is_free && closed[i] == '\'' && i + 1 < closed.size() && closed[i + 1] == ' ';
    if (is_lone) quoted.pop_back();
    quoted += closed[i];
    is_free = !is_lone && closed[i] == ' ';
    if (is_lone) ++i;
  }

  std::string clean;
  for (size_t i = 0; i < quoted.size(); ++i) {
    const absl::string_view rest = absl::string_view(quoted).substr(i);
    const bool contracts = absl::StartsWith(rest, "'s") || absl::StartsWith(rest, "'m") ||
                           absl::StartsWith(rest, "'re") || absl::StartsWith(rest, "'ve");
    if (contracts && i > 0 && quoted[i - 1] == ' ') clean.pop_back();
    clean += quoted[i];
  }
  return clean;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> BpeTokenizer::Create(const ModelFile& file) {
  absl::string_view family;
  if (file.FindValue("tokenizer.ggml.pre") != nullptr) {
    ASSIGN_OR_RETURN(family, file.GetString("tokenizer.ggml.pre"));
  }
  const PreTokenizer* pre_tokenizer = FindPreTokenizer(family);
  if (pre_tokenizer == nullptr) {
    return absl::UnimplementedError(absl::StrCat("the pre-tokenizer \"", Printable(family),
                                                 "\" (tokenizer.ggml.pre) is not supported; "
                                                 "supported are ",
                                                 PreTokenizerNames()));
  }
  VocabularyDefaults defaults;
  defaults.bos = 11;
  defaults.eos = 11;
  defaults.add_bos = pre_tokenizer->add_bos;
  ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Load(file, defaults));
  auto tokenizer =
      std::unique_ptr<BpeTokenizer>(new BpeTokenizer(std::move(vocabulary), *pre_tokenizer));
  RETURN_IF_ERROR(tokenizer->LoadMerges(file));
  return tokenizer;
}

absl::Status BpeTokenizer::LoadMerges(const ModelFile& file) {
  ASSIGN_OR_RETURN(const auto lines, file.GetStrings("tokenizer.ggml.merges"));
  absl::flat_hash_map<std::string, Symbol> others;  // symbols that are no tokens
  const auto symbol_of = [&](absl::string_view text) -> Symbol {
    const int32_t token = vocabulary().Find(text);
    if (token >= 0) return token;
    const auto [entry, is_new] =
        others.try_emplace(text, vocab_size() + static_cast<Symbol>(others.size()));
    if (is_new) {
      // As llama.cpp: what is written in ASCII goes character by character, all else is dropped.
      std::vector<int32_t>& spelling = spellings_.emplace_back();
      for (size_t i = 0; i < text.size(); ++i) {
        const int32_t character = vocabulary().Find(text.substr(i, 1));
        if (character >= 0) spelling.push_back(character);
      }
    }
    return entry->second;
  };
  for (size_t byte = 0; byte < byte_symbols_.size(); ++byte) {
    byte_symbols_[byte] = symbol_of(WriteBytes(std::string(1, static_cast<char>(byte))));
  }
  constexpr size_t kMostSymbols = std::numeric_limits<Symbol>::max();
  if (lines.size() > (kMostSymbols - static_cast<size_t>(vocab_size()) - 256) / 3) {
    return absl::InvalidArgumentError(
        absl::StrCat("broken vocabulary: ", lines.size(), " entries in tokenizer.ggml.merges"));
  }
  merges_.reserve(lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    const absl::string_view line = lines[i];
    const size_t space = line.find(' ', 1);
    if (space == absl::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("broken vocabulary: entry ", i,
                                                     " of tokenizer.ggml.merges is \"",
                                                     Printable(line), "\""));
    }
    const absl::string_view left = line.substr(0, space);
    const absl::string_view right = line.substr(space + 1);
    // Of equal ones the first counts.
    merges_.try_emplace({symbol_of(left), symbol_of(right)},
                        Merge{symbol_of(absl::StrCat(left, right)), static_cast<int32_t>(i)});
  }
  return absl::OkStatus();
}

void BpeTokenizer::EncodeText(absl::string_view text, bool /*behind_special*/,
                              std::vector<int32_t>& tokens) const {
  const Characters characters(text);
  Merger merger;
  size_t begin = 0;
  for (const size_t end : pre_tokenizer_.WordEnds(characters)) {
    EncodeWord(characters.Bytes(begin, end), merger, tokens);
    begin = end;
  }
}

void BpeTokenizer::EncodeWord(absl::string_view word, Merger& merger,
                              std::vector<int32_t>& tokens) const {
  if (pre_tokenizer_.ignore_merges && word.size() <= vocabulary().max_token_bytes()) {
    const int32_t token = vocabulary().Find(WriteBytes(word));
    if (token >= 0) {
      tokens.push_back(token);
      return;
    }
  }
  merger.Clear();
  for (const char byte : word) merger.Append(byte_symbols_[static_cast<uint8_t>(byte)]);
  merger.Merge([this](Symbol left, Symbol right) -> std::optional<Merge> {
    const auto found = merges_.find({left, right});
    if (found == merges_.end()) return std::nullopt;
    return found->second;
  });
  merger.ForEach([&](Symbol symbol) {
    if (symbol < vocab_size()) {
      tokens.push_back(symbol);
      return;
    }
    const std::vector<int32_t>& spelling = spellings_[static_cast<size_t>(symbol - vocab_size())];
    tokens.insert(tokens.end(), spelling.begin(), spelling.end());
  });
}

std::string BpeTokenizer::TextOf(absl::string_view entry) const {
  std::string text;
  const Characters characters(entry);
  for (size_t i = 0; i < characters.size(); ++i) {
    if (const std::optional<char> byte = ByteOf(characters[i])) {
      text += *byte;
      continue;
    }
    // A character that stands for no byte; llama.cpp says it in these words.
    text += "[UNK_BYTE_0x";
    for (const char byte : characters.Bytes(i, i + 1)) {
      absl::StrAppendFormat(&text, "%02x", static_cast<uint8_t>(byte));
    }
    absl::StrAppend(&text, entry, "]");
  }
  return text;
}

std::string BpeTokenizer::Decode(const std::vector<int32_t>& tokens, bool remove_special,
                                 bool unparse_special) const {
  std::string text = VocabularyTokenizer::Decode(tokens, remove_special, unparse_special);
  return pre_tokenizer_.clean_spaces ? CleanSpaces(text) : text;
}

}  // namespace efedllm
