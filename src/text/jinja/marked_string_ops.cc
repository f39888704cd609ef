#include "text/jinja/marked_string_ops.h"

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace efedllm::jinja {
namespace {

// map(character) -> character, in order.
template <typename Map>
MarkedText MapCharacters(const MarkedText& text, Map map) {
  MarkedText mapped;
  text.ForEachRun([&](absl::string_view run, Origin origin) {
    std::string bytes;
    while (!run.empty()) {
      const Utf8Char c = DecodeUtf8(run);
      if (c.kind == Utf8Char::Kind::kValid) {
        bytes += EncodeUtf8(map(c.code_point));
      } else {
        bytes.append(run.data(), c.bytes);
      }
      run.remove_prefix(c.bytes);
    }
    mapped.Append(bytes, origin);
  });
  return mapped;
}

// Where white space begins, from `at` on; its end goes to *end. text.size() if there is none.
size_t FindSpace(absl::string_view text, size_t at, size_t* end) {
  while (at < text.size()) {
    const absl::string_view rest = text.substr(at);
    const size_t spaces = rest.size() - TrimPythonStart(rest).size();
    if (spaces > 0) {
      *end = at + spaces;
      return at;
    }
    at += DecodeUtf8(rest).bytes;
  }
  *end = text.size();
  return text.size();
}

std::vector<MarkedText> SplitAtSpace(const MarkedText& text, int64_t most) {
  std::vector<MarkedText> parts;
  absl::string_view rest = TrimPythonStart(text.bytes());
  while (!rest.empty()) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) >= most) {
      parts.push_back(text.Part(rest));  // str.split keeps the white space at the end here
      break;
    }
    size_t end = 0;
    const size_t space = FindSpace(rest, 0, &end);
    parts.push_back(text.Part(rest.substr(0, space)));
    rest = rest.substr(end);
  }
  return parts;
}

std::vector<MarkedText> SplitAtSpaceFromEnd(const MarkedText& text, int64_t most) {
  std::vector<MarkedText> parts;
  absl::string_view rest = TrimPythonEnd(text.bytes());
  while (!rest.empty()) {
    size_t begin = rest.size();  // of the last word
    if (most >= 0 && static_cast<int64_t>(parts.size()) >= most) {
      begin = 0;
    } else {
      while (begin > 0) {
        const absl::string_view last = LastCharacter(rest.substr(0, begin));
        if (IsPythonSpace(DecodeUtf8(last).code_point)) break;
        begin -= last.size();
      }
    }
    parts.push_back(text.Part(rest.substr(begin)));
    rest = TrimPythonEnd(rest.substr(0, begin));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

MarkedText Strip(const MarkedText& text, Ends ends, const MarkedText* chars) {
  absl::string_view rest = text.bytes();
  if (chars == nullptr) {
    if (ends != Ends::kEnd) rest = TrimPythonStart(rest);
    if (ends != Ends::kStart) rest = TrimPythonEnd(rest);
    return text.Part(rest);
  }
  const auto strips = [chars](absl::string_view c) { return absl::StrContains(chars->bytes(), c); };
  while (ends != Ends::kEnd && !rest.empty()) {
    const absl::string_view first = rest.substr(0, DecodeUtf8(rest).bytes);
    if (!strips(first)) break;
    rest.remove_prefix(first.size());
  }
  while (ends != Ends::kStart && !rest.empty() && strips(LastCharacter(rest))) {
    rest.remove_suffix(LastCharacter(rest).size());
  }
  return text.Part(rest);
}

MarkedText Replace(const MarkedText& text, absl::string_view old, const MarkedText& by,
                   int64_t most, Runtime& runtime) {
  MarkedText replaced;
  const absl::string_view bytes = text.bytes();
  size_t at = 0;
  for (; most != 0 && runtime.ok(); --most) {
    const size_t found = bytes.find(old, at);
    if (found == absl::string_view::npos) break;
    replaced.AppendPart(text, at, found);
    if (!runtime.Reserve(by.size())) break;
    replaced.Append(by);
    at = found + old.size();
    runtime.Charge(1);
  }
  replaced.AppendPart(text, at, text.size());
  return replaced;
}

std::vector<MarkedText> Split(const MarkedText& text, const MarkedText* separator, int64_t most) {
  if (separator == nullptr) return SplitAtSpace(text, most);
  std::vector<MarkedText> parts;
  size_t at = 0;
  for (; most != 0; --most) {
    const size_t found = text.bytes().find(separator->bytes(), at);
    if (found == std::string::npos) break;
    parts.push_back(text.Substr(at, found));
    at = found + separator->size();
  }
  parts.push_back(text.Substr(at, text.size()));
  return parts;
}

std::vector<MarkedText> SplitFromEnd(const MarkedText& text, const MarkedText* separator,
                                     int64_t most) {
  if (separator == nullptr) return SplitAtSpaceFromEnd(text, most);
  std::vector<MarkedText> parts;
  size_t end = text.size();
  for (; most != 0; --most) {
    const absl::string_view rest = absl::string_view(text.bytes()).substr(0, end);
    const size_t found = rest.rfind(separator->bytes());
    if (found == absl::string_view::npos) break;
    parts.push_back(text.Substr(found + separator->size(), end));
    end = found;
  }
  parts.push_back(text.Substr(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<MarkedText> SplitLines(const MarkedText& text) {
  std::vector<MarkedText> lines;
  const std::string& bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = std::min(bytes.find_first_of("\n\r\v\f\x1c\x1d\x1e", at), bytes.size());
    lines.push_back(text.Substr(at, end));
    at = end + (bytes.compare(end, 2, "\r\n") == 0 ? 2 : 1);
  }
  return lines;
}

MarkedText Upper(const MarkedText& text) { return MapCharacters(text, ToUpper); }
MarkedText Lower(const MarkedText& text) { return MapCharacters(text, ToLower); }

MarkedText Capitalize(const MarkedText& text) {
  bool is_first = true;
  return MapCharacters(text, [&is_first](char32_t c) {
    return std::exchange(is_first, false) ? ToUpper(c) : ToLower(c);
  });
}

MarkedText Title(const MarkedText& text, bool (*is_gap)(char32_t)) {
  bool begins = true;
  return MapCharacters(text, [&begins, is_gap](char32_t c) {
    const char32_t mapped = begins ? ToUpper(c) : ToLower(c);
    begins = is_gap(c);
    return mapped;
  });
}

}  // namespace efedllm::jinja
