#include "text/utf8.h"

namespace efedllm {
namespace {

struct Lead {
  size_t bytes;          // of the whole character; 0: no character begins like this
  uint8_t second_first;  // the second byte's range
  uint8_t second_last;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xc2) return {0, 0, 0};
  if (byte < 0xe0) return {2, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};
  if (byte < 0xf0) return {3, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

}  // namespace

Utf8Char DecodeUtf8(absl::string_view text) {
  const uint8_t first = static_cast<uint8_t>(text[0]);
  const Lead lead = LeadOf(first);
  if (lead.bytes == 0) return {Utf8Char::Kind::kInvalid, 1, 0xfffd};
  if (lead.bytes == 1) return {Utf8Char::Kind::kValid, 1, first};
  char32_t code_point = first & (0x7f >> lead.bytes);
  for (size_t i = 1; i < lead.bytes; ++i) {
    if (i == text.size()) return {Utf8Char::Kind::kIncomplete, i, 0xfffd};
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.second_first : 0x80;
    const uint8_t high = i == 1 ? lead.second_last : 0xbf;
    if (byte < low || byte > high) return {Utf8Char::Kind::kInvalid, i, 0xfffd};
    code_point = code_point << 6 | (byte & 0x3f);
  }
  return {Utf8Char::Kind::kValid, lead.bytes, code_point};
}

std::string EncodeUtf8(char32_t code_point) {
  const auto tail = [code_point](int shift) {
    return static_cast<char>(0x80 | ((code_point >> shift) & 0x3f));
  };
  const auto lead = [code_point](uint32_t mark, int shift) {
    return static_cast<char>(mark | code_point >> shift);
  };
  if (code_point < 0x80) return {lead(0, 0)};
  if (code_point < 0x800) return {lead(0xc0, 6), tail(0)};
  if (code_point < 0x10000) return {lead(0xe0, 12), tail(6), tail(0)};
  return {lead(0xf0, 18), tail(12), tail(6), tail(0)};
}

}  // namespace efedllm
