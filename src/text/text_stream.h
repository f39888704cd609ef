// Tokens -> the text that a client may see already: whole UTF-8 characters, cut exactly before a
// stop string.
#ifndef EFEDLLM_TEXT_TEXT_STREAM_H_
#define EFEDLLM_TEXT_TEXT_STREAM_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace efedllm {

// One per sequence; one caller at a time. Holds back bytes that may yet turn out to be part of a
// character or of a stop string; bytes that can't become UTF-8 any more come out as U+FFFD.
class TextStream {
 public:
  explicit TextStream(std::vector<std::string> stop_strings);

  // Text that is now sure. After stopped() everything is ignored.
  std::string Append(absl::string_view piece_bytes);
  // What was held back, at the end of generation. Empty after stopped().
  std::string Finish();
  // A stop string was seen. The text before it has been handed out, the string itself and all
  // behind it never.
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stop_strings_;
  std::string held_;     // valid UTF-8 that may begin a stop string
  std::string partial_;  // an incomplete UTF-8 character
  bool stopped_ = false;
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_TEXT_STREAM_H_
