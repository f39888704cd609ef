// UTF-8, as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#ifndef EFEDLLM_TEXT_UTF8_H_
#define EFEDLLM_TEXT_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace efedllm {

struct Utf8Char {
  enum class Kind {
    kValid,
    kInvalid,     // these bytes can't be, or begin, a character
    kIncomplete,  // a character's beginning; the text ends before the character does
  };
  Kind kind = Kind::kInvalid;
  size_t bytes = 1;  // how many to take; for kInvalid, what one U+FFFD stands for
  char32_t code_point = 0xfffd;
};

// The first character of text, which must not be empty.
Utf8Char DecodeUtf8(absl::string_view text);

// Any code point, surrogates too.
std::string EncodeUtf8(char32_t code_point);

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_UTF8_H_
