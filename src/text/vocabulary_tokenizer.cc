#include "text/vocabulary_tokenizer.h"

#include "text/special_tokens.h"

namespace efedllm {

std::vector<int32_t> VocabularyTokenizer::EncodePrompt(absl::Span<const PromptPiece> pieces,
                                                       bool add_special) const {
  std::string text;
  std::vector<ByteRange> special_ranges;
  for (const PromptPiece& piece : pieces) {
    const ByteRange range = {text.size(), text.size() + piece.text.size()};
    text += piece.text;
    if (!piece.special) continue;
    if (!special_ranges.empty() && special_ranges.back().end == range.begin) {
      special_ranges.back().end = range.end;
    } else {
      special_ranges.push_back(range);
    }
  }

  std::vector<int32_t> tokens;
  if (add_special && vocabulary_.add_bos()) tokens.push_back(vocabulary_.bos());
  bool behind_special = true;
  for (const TextPart& part : SplitAtSpecialTokens(vocabulary_, text, special_ranges)) {
    if (part.token >= 0) {
      tokens.push_back(part.token);
    } else {
      EncodeText(absl::string_view(text).substr(part.text.begin, part.text.end - part.text.begin),
                 behind_special, tokens);
    }
    behind_special = part.token >= 0;
  }
  if (add_special && vocabulary_.add_eos()) tokens.push_back(vocabulary_.eos());
  return tokens;
}

std::string VocabularyTokenizer::Piece(int32_t token, bool special) const {
  using Kind = VocabularyToken;
  if (!vocabulary_.Contains(token)) return "";
  const VocabularyToken& entry = vocabulary_.token(token);
  const bool is_special = (entry.kind & (Kind::kUnknown | Kind::kControl)) != 0;
  if (is_special && !special) return "";
  if (is_special || (entry.kind & Kind::kUserDefined) != 0) return entry.text;
  if (entry.kind & Kind::kNormal) return TextOf(entry.text);
  if (entry.kind & Kind::kByte) return std::string(1, static_cast<char>(entry.byte));
  return "";
}

std::string VocabularyTokenizer::Decode(const std::vector<int32_t>& tokens, bool remove_special,
                                        bool unparse_special) const {
  absl::Span<const int32_t> rest(tokens);
  bool strip_space = vocabulary_.add_space_prefix();
  if (remove_special && vocabulary_.add_bos() && !rest.empty() && rest.front() == bos()) {
    rest.remove_prefix(1);
    strip_space = false;
  }
  if (remove_special && vocabulary_.add_eos() && !rest.empty() && rest.back() == eos()) {
    rest.remove_suffix(1);
  }
  std::string text;
  for (const int32_t token : rest) {
    const std::string piece = Piece(token, unparse_special);
    const bool strip = strip_space && !piece.empty() && piece.front() == ' ';
    text.append(piece, strip ? 1 : 0);
    strip_space = false;
  }
  return text;
}

}  // namespace efedllm
