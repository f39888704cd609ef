// Cuts a text into the words that byte-pair encoding never merges across, as the model family
// ("tokenizer.ggml.pre") has it. The families publish regular expressions; here each is a function
// that takes time linear in the text and no stack, whatever the text. Equal to llama.cpp, also
// where its reading of an expression differs from the family's own.
#ifndef EFEDLLM_TEXT_PRE_TOKENIZER_H_
#define EFEDLLM_TEXT_PRE_TOKENIZER_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "text/char_class.h"

namespace efedllm {

// A text by its characters. Each byte that is not UTF-8 is a U+FFFD, except that surrogates pass.
class Characters {
 public:
  explicit Characters(absl::string_view text);

  size_t size() const { return code_points_.size(); }
  char32_t operator[](size_t i) const { return code_points_[i]; }
  CharClass Class(size_t i) const { return classes_[i]; }
  // The characters [begin, end) as UTF-8.
  absl::string_view Bytes(size_t begin, size_t end) const {
    return absl::string_view(bytes_).substr(byte_begins_[begin],
                                            byte_begins_[end] - byte_begins_[begin]);
  }

 private:
  void Append(absl::string_view bytes, char32_t code_point);

  std::string bytes_;
  std::vector<size_t> byte_begins_;  // one more than characters
  std::vector<char32_t> code_points_;
  std::vector<CharClass> classes_;
};

struct CharRange {
  size_t begin;
  size_t end;
};

// One rule of a family: the first word in [begin, end) that it sees; [end, end) if there is none.
// It doesn't look beyond that part of the text.
using SplitRule = CharRange (*)(const Characters& text, size_t begin, size_t end);

// A family. Immutable; lives as long as the process.
struct PreTokenizer {
  // Each rule is applied to the parts that those before it made: its words, and what lies between
  // them, are the parts for the next.
  absl::Span<const SplitRule> rules;
  bool ignore_merges = false;  // a word that is a token is that token, even if no merges make it
  bool add_bos = false;        // unless the file says otherwise
  bool clean_spaces = false;   // decoding takes away the space before "?", "'s" and the like

  // Where the words end, in characters. The first begins at 0, and each where the one before ends.
  std::vector<size_t> WordEnds(const Characters& text) const;
};

// nullptr: no such family. An empty name is "default".
const PreTokenizer* FindPreTokenizer(absl::string_view name);
// The names of all of them, for a message.
std::string PreTokenizerNames();

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_PRE_TOKENIZER_H_
