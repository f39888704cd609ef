#include "text/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace efedllm {
namespace {

using Kind = Utf8Char::Kind;

void Expect(const std::string& text, Kind kind, size_t bytes) {
  const Utf8Char c = DecodeUtf8(text);
  EXPECT_EQ(c.kind, kind) << text;
  EXPECT_EQ(c.bytes, bytes) << text;
}

TEST(Utf8, ReadsTheFirstAndLastCharacterOfEachLength) {
  for (const char32_t c :
       {0x00u, 0x7fu, 0x80u, 0x7ffu, 0x800u, 0xd7ffu, 0xe000u, 0xffffu, 0x10000u, 0x10ffffu}) {
    const std::string text = EncodeUtf8(c);
    EXPECT_EQ(text.size(), c < 0x80 ? 1u : c < 0x800 ? 2u : c < 0x10000 ? 3u : 4u);
    EXPECT_EQ(DecodeUtf8(text + "x").code_point, c);
    Expect(text + "x", Kind::kValid, text.size());
    if (text.size() > 1)
      Expect(text.substr(0, text.size() - 1), Kind::kIncomplete, text.size() - 1);
  }
}

TEST(Utf8, RefusesOverlongFormsSurrogatesAndWhatIsTooLarge) {
  Expect("\x80", Kind::kInvalid, 1);
  Expect("\xc0\x80", Kind::kInvalid, 1);
  Expect("\xe0\x80\x80", Kind::kInvalid, 1);
  Expect("\xed\xa0\x80", Kind::kInvalid, 1);
  Expect("\xf0\x80\x80\x80", Kind::kInvalid, 1);
  Expect("\xf4\x90\x80\x80", Kind::kInvalid, 1);
  Expect("\xf5", Kind::kInvalid, 1);
  Expect("\xff", Kind::kInvalid, 1);
  Expect("\xe2\x96x", Kind::kInvalid, 2);
  Expect("\xf0\x9f\x92x", Kind::kInvalid, 3);
}

}  // namespace
}  // namespace efedllm
