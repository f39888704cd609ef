#include "text/spm_tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "common/status_macros.h"
#include "text/special_tokens.h"
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

// Merges one text at a time; keeps its memory from one to the next.
class Merger {
 public:
  Merger(const Vocabulary& vocabulary, const std::array<int32_t, 256>& byte_tokens)
      : vocabulary_(vocabulary), byte_tokens_(byte_tokens) {}

  void Encode(absl::string_view text, std::vector<int32_t>& tokens) {
    SplitIntoCharacters(text);
    pairs_.clear();
    for (int32_t i = 1; i < static_cast<int32_t>(symbols_.size()); ++i) Propose(i - 1, i);
    while (!pairs_.empty()) {
      std::pop_heap(pairs_.begin(), pairs_.end());
      const Pair pair = pairs_.back();
      pairs_.pop_back();
      Merge(pair);
    }
    for (int32_t i = 0; i >= 0; i = At(i).next) Emit(At(i).text, tokens);
  }

 private:
  struct Symbol {
    absl::string_view text;  // empty: merged into the one before it
    int32_t previous;        // -1: none
    int32_t next;
  };
  struct Pair {
    float score;
    int32_t left;
    int32_t right;
    uint32_t bytes;  // of both; another sum later means that one has grown, and the pair is void

    // The heap's top has the best score; of equals, the leftmost.
    bool operator<(const Pair& other) const {
      return score < other.score || (score == other.score && left > other.left);
    }
  };

  Symbol& At(int32_t i) { return symbols_[static_cast<size_t>(i)]; }

  // Bytes that are not UTF-8 are symbols of their own, and so end as byte tokens.
  void SplitIntoCharacters(absl::string_view text) {
    symbols_.clear();
    while (!text.empty()) {
      const size_t bytes = DecodeUtf8(text).bytes;
      const int32_t i = static_cast<int32_t>(symbols_.size());
      symbols_.push_back({text.substr(0, bytes), i - 1, text.size() == bytes ? -1 : i + 1});
      text.remove_prefix(bytes);
    }
  }

  // Queues two neighbours if they make a token.
  void Propose(int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const size_t bytes = At(left).text.size() + At(right).text.size();
    if (bytes > vocabulary_.max_token_bytes()) return;
    const int32_t token = vocabulary_.Find({At(left).text.data(), bytes});
    if (token < 0) return;
    pairs_.push_back({vocabulary_.token(token).score, left, right, static_cast<uint32_t>(bytes)});
    std::push_heap(pairs_.begin(), pairs_.end());
  }

  void Merge(const Pair& pair) {
    Symbol& left = At(pair.left);
    Symbol& right = At(pair.right);
    if (left.text.empty() || right.text.empty() ||
        left.text.size() + right.text.size() != pair.bytes) {
      return;
    }
    left.text = {left.text.data(), pair.bytes};
    right.text = {};
    left.next = right.next;
    if (left.next >= 0) At(left.next).previous = pair.left;
    Propose(left.previous, pair.left);
    Propose(pair.left, left.next);
  }

  void Emit(absl::string_view symbol, std::vector<int32_t>& tokens) const {
    const int32_t token = vocabulary_.Find(symbol);
    if (token >= 0) {
      tokens.push_back(token);
      return;
    }
    for (const char byte : symbol) tokens.push_back(byte_tokens_[static_cast<uint8_t>(byte)]);
  }

  const Vocabulary& vocabulary_;
  const std::array<int32_t, 256>& byte_tokens_;
  std::vector<Symbol> symbols_;
  std::vector<Pair> pairs_;  // a heap
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> SpmTokenizer::Create(const GgufFile& file) {
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
    const absl::string_view text = tokenizer->vocabulary_.token(id).text;
    if (WordEnd(text, 0) != text.size()) tokenizer->words_are_separate_ = false;
  }
  return tokenizer;
}

absl::Status SpmTokenizer::IndexBytes() {
  for (size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
    int32_t& token = byte_tokens_[byte];
    token = vocabulary_.Find(absl::StrFormat("<0x%02X>", byte));
    if (token < 0) token = vocabulary_.Find(std::string(1, static_cast<char>(byte)));
    if (token < 0) token = vocabulary_.unknown();
    if (token < 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "broken vocabulary: no token for the byte 0x%02X, and no unknown token", byte));
    }
  }
  return absl::OkStatus();
}

std::vector<int32_t> SpmTokenizer::EncodePrompt(absl::Span<const PromptPiece> pieces,
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
                 behind_special && vocabulary_.add_space_prefix(), tokens);
    }
    behind_special = part.token >= 0;
  }
  if (add_special && vocabulary_.add_eos()) tokens.push_back(vocabulary_.eos());
  return tokens;
}

void SpmTokenizer::EncodeText(absl::string_view text, bool space_prefix,
                              std::vector<int32_t>& tokens) const {
  const std::string escaped =
      absl::StrCat(space_prefix ? kSpace : "", absl::StrReplaceAll(text, {{" ", kSpace}}));
  Merger merger(vocabulary_, byte_tokens_);
  if (!words_are_separate_) {
    merger.Encode(escaped, tokens);
    return;
  }
  // Merges never leave a word then, so each can be done alone: less memory, and it stays in cache.
  for (size_t begin = 0; begin < escaped.size();) {
    const size_t end = WordEnd(escaped, begin);
    merger.Encode(absl::string_view(escaped).substr(begin, end - begin), tokens);
    begin = end;
  }
}

std::string SpmTokenizer::Piece(int32_t token, bool special) const {
  using Kind = VocabularyToken;
  if (!vocabulary_.Contains(token)) return "";
  const VocabularyToken& entry = vocabulary_.token(token);
  const bool is_special = (entry.kind & (Kind::kUnknown | Kind::kControl)) != 0;
  if (is_special && !special) return "";
  if (is_special || (entry.kind & Kind::kUserDefined) != 0) return entry.text;
  if (entry.kind & Kind::kNormal) return absl::StrReplaceAll(entry.text, {{kSpace, " "}});
  if (entry.kind & Kind::kByte) return std::string(1, static_cast<char>(entry.byte));
  return "";
}

std::string SpmTokenizer::Decode(const std::vector<int32_t>& tokens, bool remove_special,
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
