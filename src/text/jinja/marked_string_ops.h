// Python's string operations on marked text.
#ifndef EFEDLLM_TEXT_JINJA_MARKED_STRING_OPS_H_
#define EFEDLLM_TEXT_JINJA_MARKED_STRING_OPS_H_

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "text/jinja/marked_text.h"
#include "text/jinja/runtime.h"

namespace efedllm::jinja {

enum class Ends { kStart, kEnd, kBoth };

// str.strip and its like. chars: null means white space, else any of its characters.
MarkedText Strip(const MarkedText& text, Ends ends, const MarkedText* chars);
// At most `most` times; < 0: all. `old` must not be empty.
MarkedText Replace(const MarkedText& text, absl::string_view old, const MarkedText& by,
                   int64_t most, Runtime& runtime);
// str.split and rsplit. separator: null means runs of white space; it must not be empty.
std::vector<MarkedText> Split(const MarkedText& text, const MarkedText* separator, int64_t most);
std::vector<MarkedText> SplitFromEnd(const MarkedText& text, const MarkedText* separator,
                                     int64_t most);
std::vector<MarkedText> SplitLines(const MarkedText& text);

MarkedText Upper(const MarkedText& text);
MarkedText Lower(const MarkedText& text);
MarkedText Capitalize(const MarkedText& text);
// A capital behind each character for which is_gap holds, small letters elsewhere.
MarkedText Title(const MarkedText& text, bool (*is_gap)(char32_t));

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_MARKED_STRING_OPS_H_
