// White space and case as Python's str has them, which is what chat templates go by.
#ifndef EFEDLLM_TEXT_PYTHON_TEXT_H_
#define EFEDLLM_TEXT_PYTHON_TEXT_H_

#include <string>

#include "absl/strings/string_view.h"

namespace efedllm {

bool IsPythonSpace(char32_t c);  // str.isspace
absl::string_view TrimPythonStart(absl::string_view text);
absl::string_view TrimPythonEnd(absl::string_view text);
inline absl::string_view TrimPython(absl::string_view text) {
  return TrimPythonEnd(TrimPythonStart(text));
}

// The last character of text, which must not be empty.
absl::string_view LastCharacter(absl::string_view text);
// How many characters.
size_t CountCharacters(absl::string_view text);
// The byte at which character `index` begins; text.size() if there are no more than that many.
size_t ByteOfCharacter(absl::string_view text, size_t index);

// Only the scripts whose capitals map one to one: Latin, Greek, Cyrillic.
char32_t ToUpper(char32_t c);
char32_t ToLower(char32_t c);

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_PYTHON_TEXT_H_
