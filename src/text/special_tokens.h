// Cuts a text at the special tokens that it names.
#ifndef EFEDLLM_TEXT_SPECIAL_TOKENS_H_
#define EFEDLLM_TEXT_SPECIAL_TOKENS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "text/vocabulary.h"

namespace efedllm {

struct ByteRange {
  size_t begin = 0;
  size_t end = 0;  // one behind the last byte
};

// A special token, or the text of a range that has none.
struct TextPart {
  int32_t token = -1;  // -1: text
  ByteRange text;      // never empty for text
};

// User-defined tokens are cut out everywhere, control and unknown tokens only where they lie wholly
// within one of the special ranges (ascending, disjoint). The longest token is looked for first, in
// the whole text; then the next in what is left, as llama.cpp does. What a token swallows behind it
// is in no part.
std::vector<TextPart> SplitAtSpecialTokens(const Vocabulary& vocabulary, absl::string_view text,
                                           absl::Span<const ByteRange> special_ranges);

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_SPECIAL_TOKENS_H_
