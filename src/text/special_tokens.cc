#include "text/special_tokens.h"

#include <string.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"

namespace efedllm {
namespace {

constexpr size_t kNotFound = static_cast<size_t>(-1);

// Says cheaply that a token can't be in the text, since vocabularies have thousands of them.
class PairsOfBytes {
 public:
  explicit PairsOfBytes(absl::string_view text) : seen_(1 << 16) {
    for (size_t i = 1; i < text.size(); ++i) seen_[Key(text, i)] = true;
  }
  bool MayContain(absl::string_view token) const {
    return token.size() < 2 || (seen_[Key(token, 1)] && seen_[Key(token, token.size() - 1)]);
  }

 private:
  static size_t Key(absl::string_view text, size_t i) {
    return static_cast<size_t>(static_cast<uint8_t>(text[i - 1])) << 8 |
           static_cast<uint8_t>(text[i]);
  }
  std::vector<bool> seen_;
};

// memmem is linear, whatever the text; string_view::find is not.
size_t Find(absl::string_view text, absl::string_view token, ByteRange where) {
  const void* found =
      memmem(text.data() + where.begin, where.end - where.begin, token.data(), token.size());
  return found == nullptr ? kNotFound
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

// The first place in `where` at which the token may be cut out.
size_t FindAllowed(absl::string_view text, const VocabularyToken& token, ByteRange where,
                   absl::Span<const ByteRange> special_ranges) {
  if (token.kind == VocabularyToken::kUserDefined) return Find(text, token.text, where);
  auto range = std::partition_point(special_ranges.begin(), special_ranges.end(),
                                    [&](const ByteRange& r) { return r.end <= where.begin; });
  for (; range != special_ranges.end() && range->begin < where.end; ++range) {
    const ByteRange both = {std::max(range->begin, where.begin), std::min(range->end, where.end)};
    const size_t found = Find(text, token.text, both);
    if (found != kNotFound) return found;
  }
  return kNotFound;
}

// Cuts one token out of all parts that are text.
std::vector<TextPart> CutOut(const Vocabulary& vocabulary, int32_t id, absl::string_view text,
                             absl::Span<const ByteRange> special_ranges,
                             const std::vector<TextPart>& parts) {
  const VocabularyToken& token = vocabulary.token(id);
  std::vector<TextPart> result;
  for (const TextPart& part : parts) {
    if (part.token >= 0) {
      result.push_back(part);
      continue;
    }
    ByteRange rest = part.text;
    while (rest.begin < rest.end) {
      const size_t found = FindAllowed(text, token, rest, special_ranges);
      if (found == kNotFound) break;
      if (found > rest.begin) result.push_back({-1, {rest.begin, found}});
      rest.begin = found + token.text.size();
      result.push_back({id, {found, rest.begin}});
      while (token.swallows_space_behind && rest.begin < rest.end &&
             absl::ascii_isspace(static_cast<unsigned char>(text[rest.begin]))) {
        ++rest.begin;
      }
    }
    if (rest.begin < rest.end) result.push_back({-1, rest});
  }
  return result;
}

}  // namespace

std::vector<TextPart> SplitAtSpecialTokens(const Vocabulary& vocabulary, absl::string_view text,
                                           absl::Span<const ByteRange> special_ranges) {
  std::vector<TextPart> parts;
  if (text.empty()) return parts;
  parts.push_back({-1, {0, text.size()}});
  const PairsOfBytes pairs(text);
  for (const int32_t id : vocabulary.special_tokens()) {
    const VocabularyToken& token = vocabulary.token(id);
    if (!pairs.MayContain(token.text) ||
        FindAllowed(text, token, {0, text.size()}, special_ranges) == kNotFound) {
      continue;
    }
    parts = CutOut(vocabulary, id, text, special_ranges, parts);
  }
  return parts;
}

}  // namespace efedllm
