#include "text/python_text.h"

#include <cstdint>

#include "text/utf8.h"

namespace efedllm {
namespace {

// Capitals and small letters alternate there: U+0100, U+0101, U+0102 ...
bool IsAlternating(char32_t c, bool& capitals_are_even) {
  capitals_are_even = !((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e));
  return (c >= 0x100 && c <= 0x12f) || (c >= 0x132 && c <= 0x137) || (c >= 0x139 && c <= 0x148) ||
         (c >= 0x14a && c <= 0x177) || (c >= 0x179 && c <= 0x17e) || (c >= 0x460 && c <= 0x481) ||
         (c >= 0x48a && c <= 0x4bf) || (c >= 0x4d0 && c <= 0x52f) || (c >= 0x1e00 && c <= 0x1e95) ||
         (c >= 0x1ea0 && c <= 0x1eff);
}

}  // namespace

bool IsPythonSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

absl::string_view TrimPythonStart(absl::string_view text) {
  while (!text.empty()) {
    const Utf8Char c = DecodeUtf8(text);
    if (!IsPythonSpace(c.code_point)) break;
    text.remove_prefix(c.bytes);
  }
  return text;
}

absl::string_view LastCharacter(absl::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && text.size() - begin < 4 &&
         (static_cast<uint8_t>(text[begin]) & 0xc0) == 0x80) {
    --begin;
  }
  const bool is_whole = begin + DecodeUtf8(text.substr(begin)).bytes == text.size();
  return text.substr(is_whole ? begin : text.size() - 1);
}

absl::string_view TrimPythonEnd(absl::string_view text) {
  while (!text.empty()) {
    const absl::string_view last = LastCharacter(text);
    if (!IsPythonSpace(DecodeUtf8(last).code_point)) break;
    text.remove_suffix(last.size());
  }
  return text;
}

size_t CountCharacters(absl::string_view text) {
  size_t count = 0;
  for (; !text.empty(); ++count) text.remove_prefix(DecodeUtf8(text).bytes);
  return count;
}

size_t ByteOfCharacter(absl::string_view text, size_t index) {
  absl::string_view rest = text;
  for (; index > 0 && !rest.empty(); --index) rest.remove_prefix(DecodeUtf8(rest).bytes);
  return text.size() - rest.size();
}

char32_t ToUpper(char32_t c) {
  bool even = false;
  if (c >= 'a' && c <= 'z') return c - 0x20;
  if (c < 0xb5) return c;
  if (c == 0xb5) return 0x39c;
  if (c == 0xff) return 0x178;
  if (c == 0x131) return 'I';
  if (c >= 0xe0 && c <= 0xfe && c != 0xf7) return c - 0x20;
  if (IsAlternating(c, even)) return (c % 2 == 1) == even ? c - 1 : c;
  if (c >= 0x3b1 && c <= 0x3cb) return c == 0x3c2 ? 0x3a3 : c - 0x20;
  if (c >= 0x430 && c <= 0x44f) return c - 0x20;
  if (c >= 0x450 && c <= 0x45f) return c - 0x50;
  return c;
}

char32_t ToLower(char32_t c) {
  bool even = false;
  if (c >= 'A' && c <= 'Z') return c + 0x20;
  if (c < 0xc0) return c;
  if (c == 0x178) return 0xff;
  if (c >= 0xc0 && c <= 0xde && c != 0xd7) return c + 0x20;
  if (c == 0x130) return c;
  if (IsAlternating(c, even)) return (c % 2 == 0) == even ? c + 1 : c;
  if (c >= 0x391 && c <= 0x3ab && c != 0x3a2) return c + 0x20;
  if (c >= 0x410 && c <= 0x42f) return c + 0x20;
  if (c >= 0x400 && c <= 0x40f) return c + 0x50;
  return c;
}

}  // namespace efedllm
