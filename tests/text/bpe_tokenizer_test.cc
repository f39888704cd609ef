#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "text/small_vocabulary.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr TokenizeOptions kPlain = {/*add_special=*/false, /*parse_special=*/false};
constexpr TokenizeOptions kAll = {/*add_special=*/true, /*parse_special=*/true};

// All 256 bytes, some merges, and <|end|>.
struct BpeVocabulary {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<std::string> merges = {"b c", "a b", "a bc", "Ġ a", "x y"};  // "xy" is no token

  BpeVocabulary() {
    char32_t next = 0x100;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
      Add(EncodeUtf8(printable ? b : next++));
    }
    Add("bc").Add("ab").Add("abc").Add("Ġa").Add("whole").Add("<|end|>", kControl);
  }
  BpeVocabulary& Add(const std::string& text, TokenType type = kNormal) {
    tokens.push_back(text);
    types.push_back(type);
    return *this;
  }
  int32_t Id(const std::string& text) const {
    const auto found = std::find(tokens.begin(), tokens.end(), text);
    return found == tokens.end() ? -1 : static_cast<int32_t>(found - tokens.begin());
  }
  MetadataBuilder File(const std::string& family = "gpt-2") const {
    MetadataBuilder file;
    file.Add("tokenizer.ggml.model", "gpt2")
        .Add("tokenizer.ggml.pre", family)
        .Add("tokenizer.ggml.tokens", tokens)
        .Add("tokenizer.ggml.token_type", types)
        .Add("tokenizer.ggml.merges", merges)
        .Add("tokenizer.ggml.bos_token_id", Id("<|end|>"))
        .Add("tokenizer.ggml.eos_token_id", Id("<|end|>"));
    return file;
  }
};

std::unique_ptr<Tokenizer> Make(const MetadataBuilder& builder) {
  auto tokenizer = MakeTokenizer(builder);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

TEST(BpeTokenizer, MergesInTheOrderOfTheList) {
  const BpeVocabulary v;
  const auto tokenizer = Make(v.File());
  EXPECT_THAT(tokenizer->Encode("abc", kPlain), ElementsAre(v.Id("abc")));
  EXPECT_THAT(tokenizer->Encode("abb", kPlain), ElementsAre(v.Id("ab"), v.Id("b")));
  EXPECT_THAT(tokenizer->Encode(" a", kPlain), ElementsAre(v.Id("Ġa")));
  EXPECT_THAT(tokenizer->Encode("", kPlain), IsEmpty());
}

TEST(BpeTokenizer, SpellsOutAMergeThatIsNoToken) {
  const BpeVocabulary v;
  EXPECT_THAT(Make(v.File())->Encode("xy", kPlain), ElementsAre(v.Id("x"), v.Id("y")));
}

TEST(BpeTokenizer, TakesAWholeWordWhereTheFamilyIgnoresMerges) {
  const BpeVocabulary v;
  EXPECT_EQ(Make(v.File())->Encode("whole", kPlain).size(), 5u);
  EXPECT_THAT(Make(v.File("llama-bpe"))->Encode("whole", kPlain), ElementsAre(v.Id("whole")));
}

TEST(BpeTokenizer, AddsBosAsTheFamilyDoesUnlessTheFileSaysOtherwise) {
  const BpeVocabulary v;
  EXPECT_THAT(Make(v.File())->Encode("a<|end|>", kAll), ElementsAre(v.Id("a"), v.Id("<|end|>")));
  EXPECT_THAT(Make(v.File("llama-bpe"))->Encode("a", kAll),
              ElementsAre(v.Id("<|end|>"), v.Id("a")));
  EXPECT_THAT(
      Make(v.File("llama-bpe").Add("tokenizer.ggml.add_bos_token", false))->Encode("a", kAll),
      ElementsAre(v.Id("a")));
}

TEST(BpeTokenizer, GivesBackTheBytesAndMarksWhatIsNotUtf8) {
  const BpeVocabulary v;
  const auto tokenizer = Make(v.File("qwen2"));
  const auto round_trip = [&](const std::string& text) {
    return tokenizer->Decode(tokenizer->Encode(text, kPlain), false, false);
  };
  const std::string text("ünïcödé 東京 \0 \u200b ' it 's ?", 33);
  EXPECT_EQ(round_trip(text), text);
  EXPECT_EQ(round_trip("a\xff\xe2\x96"), "a\ufffd\ufffd\ufffd");
}

TEST(BpeTokenizer, OlderFamiliesCleanUpSpacesWhenDecoding) {
  const BpeVocabulary v;
  const auto tokenizer = Make(v.File("gpt-2"));
  const auto round_trip = [&](const std::string& text) {
    return tokenizer->Decode(tokenizer->Encode(text, kPlain), false, false);
  };
  EXPECT_EQ(round_trip("so ? it 's , a ' b we 'll 've !"), "so? it's, a'b we 'll've!");
  EXPECT_EQ(round_trip(" ?  ."), "? .");
  EXPECT_EQ(round_trip("a ' ' b"), "a'' b");
}

TEST(BpeTokenizer, ShowsACharacterThatStandsForNoByte) {
  BpeVocabulary v;
  v.Add("東").Add("<0x41>", kByte);
  const auto tokenizer = Make(v.File());
  EXPECT_EQ(tokenizer->Piece(v.Id("東"), false), "[UNK_BYTE_0xe69db1東]");
  EXPECT_EQ(tokenizer->Piece(v.Id("<0x41>"), false), "A");
  EXPECT_EQ(tokenizer->Piece(v.Id("<|end|>"), false), "");
}

TEST(BpeTokenizer, NamesAFamilyThatItDoesNotHave) {
  const auto tokenizer = MakeTokenizer(BpeVocabulary().File("mystery"));
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("\"mystery\""));
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("deepseek-v3"));
}

TEST(BpeTokenizer, RefusesBrokenMerges) {
  BpeVocabulary v;
  v.merges.push_back("nospace");
  const auto broken = MakeTokenizer(v.File());
  EXPECT_THAT(std::string(broken.status().message()), HasSubstr("\"nospace\""));
  const auto none = MakeTokenizer(
      MetadataBuilder().Add("tokenizer.ggml.model", "gpt2").Add("tokenizer.ggml.tokens", v.tokens));
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("tokenizer.ggml.merges"));
}

TEST(BpeTokenizer, MegabytesOfOneWordTakeNoRecursionAndLittleTime) {
  const BpeVocabulary v;
  const auto tokenizer = Make(v.File("llama-bpe"));
  std::string word;
  while (word.size() < 3'000'000) word += "abc";
  EXPECT_EQ(tokenizer->Encode(word, kPlain).size(), word.size() / 3);
  EXPECT_EQ(tokenizer->Encode(std::string(1'000'000, '\xff'), kPlain).size(), 3'000'000u);
}

}  // namespace
}  // namespace efedllm
