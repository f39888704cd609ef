// What kind of character a code point is, as far as tokenizers ask.
#ifndef EFEDLLM_TEXT_CHAR_CLASS_H_
#define EFEDLLM_TEXT_CHAR_CLASS_H_

#include <cstdint>

namespace efedllm {

// The general categories of Unicode 15.1, by their first letter, and the property White_Space
// before them. Our own table: a library's would change with its Unicode version, and so would token
// ids.
enum class CharClass : uint8_t { kOther, kSpace, kLetter, kNumber, kMark, kPunctuation, kSymbol };

// kOther for what is no code point, too.
CharClass ClassOf(char32_t code_point);

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_CHAR_CLASS_H_
