// Tokens -> the text that a client may see already: whole UTF-8 characters, cut exactly before a
// stop string.
#ifndef EFEDLLM_TEXT_TEXT_STREAM_H_
#define EFEDLLM_TEXT_TEXT_STREAM_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace efedllm {

// One per sequence; one caller at a time. Holds back bytes that may yet turn out to be part of a
// character or of a stop string, and no others; bytes that can't become UTF-8 any more come out as
// U+FFFD. The text is the same however it was cut into tokens: it ends before the first place at
// which a stop string begins. Time is linear in the text's length, whatever the stop strings.
class TextStream {
 public:
  // Empty stop strings are ignored; they should be refused at the border.
  explicit TextStream(std::vector<std::string> stop_strings);

  // Text that is now sure. After stopped() everything is ignored.
  std::string Append(absl::string_view piece_bytes);
  // What was held back, at the end of generation. Empty after stopped(). May find that it stopped:
  // where of two overlapping stop strings the one that begins later was complete.
  std::string Finish();
  // A stop string was seen. The text before it has been handed out, the string itself and all
  // behind it never.
  bool stopped() const { return stopped_; }

 private:
  // Knuth, Morris and Pratt: how much of a stop string the text ends with.
  struct Matcher {
    std::string stop;
    std::vector<size_t> border;  // border[n]: longest proper prefix that the first n bytes end with
    size_t matched = 0;
  };

  void TakeCharacters();
  std::string Match(absl::string_view text);
  size_t FirstUnsure() const;

  std::vector<Matcher> matchers_;
  std::string partial_;            // an incomplete UTF-8 character
  std::string fresh_;              // characters that Match hasn't seen
  std::string held_;               // valid UTF-8 that may begin a stop string
  std::optional<size_t> stop_at_;  // in held_: a stop string begins here, an earlier one yet may
  bool stopped_ = false;
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_TEXT_STREAM_H_
