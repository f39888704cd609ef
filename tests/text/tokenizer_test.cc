#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "common/random.h"
#include "text/small_vocabulary.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr TokenizeOptions kPlain = {/*add_special=*/false, /*parse_special=*/false};
constexpr TokenizeOptions kParse = {/*add_special=*/false, /*parse_special=*/true};
constexpr TokenizeOptions kAdd = {/*add_special=*/true, /*parse_special=*/false};

int32_t Byte(int value) { return 3 + value; }

SmallVocabulary Letters() {
  SmallVocabulary v;
  v.Add("▁", -1).Add("a", -2).Add("b", -3).Add("c", -4);
  v.Add("ab", -10).Add("bc", -5).Add("▁a", -20).Add("abc", -30).Add("▁▁", -6);
  v.Add("<|im_start|>", 0, kControl).Add("<|im_end|>", 0, kControl).Add("\n\n", 0, kUserDefined);
  return v;
}

std::unique_ptr<Tokenizer> Make(const MetadataBuilder& builder) {
  auto tokenizer = MakeTokenizer(builder);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

TEST(Tokenizer, MergesTheBestScoreFirst) {
  const SmallVocabulary v = Letters();
  const auto tokenizer = Make(v.File().Add("tokenizer.ggml.add_space_prefix", false));
  // "bc" (-5) beats "ab" (-10), then "a" + "bc" is a token too.
  EXPECT_THAT(tokenizer->Encode("abc", kPlain), ElementsAre(v.Id("abc")));
  EXPECT_THAT(tokenizer->Encode("abb", kPlain), ElementsAre(v.Id("ab"), v.Id("b")));
}

TEST(Tokenizer, PutsASpaceBeforeTheTextUnlessTheFileSaysNo) {
  const SmallVocabulary v = Letters();
  EXPECT_THAT(Make(v.File())->Encode("a", kPlain), ElementsAre(v.Id("▁a")));
  EXPECT_THAT(Make(v.File().Add("tokenizer.ggml.add_space_prefix", false))->Encode("a", kPlain),
              ElementsAre(v.Id("a")));
}

TEST(Tokenizer, PutsASpaceBehindASpecialTokenToo) {
  const SmallVocabulary v = Letters();
  EXPECT_THAT(Make(v.File())->Encode("a<|im_end|>a", kParse),
              ElementsAre(v.Id("▁a"), v.Id("<|im_end|>"), v.Id("▁a")));
}

TEST(Tokenizer, AddsBosAndEosAsTheFileSays) {
  const SmallVocabulary v = Letters();
  EXPECT_THAT(Make(v.File())->Encode("", kAdd), ElementsAre(1));
  const auto both = Make(v.File().Add("tokenizer.ggml.add_eos_token", true));
  EXPECT_THAT(both->Encode("a", kAdd), ElementsAre(1, v.Id("▁a"), 2));
  EXPECT_EQ(both->Decode({1, v.Id("▁a"), 2}, /*remove_special=*/true, /*unparse_special=*/true),
            " a");
  EXPECT_EQ(both->Decode({v.Id("▁a")}, /*remove_special=*/true, /*unparse_special=*/true), "a");
}

TEST(Tokenizer, SeesSpecialTokensOnlyWhenAskedButUserDefinedOnesAlways) {
  const SmallVocabulary v = Letters();
  const auto tokenizer = Make(v.File().Add("tokenizer.ggml.add_space_prefix", false));
  EXPECT_THAT(tokenizer->Encode("a\n\nb", kPlain), ElementsAre(v.Id("a"), v.Id("\n\n"), v.Id("b")));
  EXPECT_THAT(tokenizer->Encode("<|im_end|>", kParse), ElementsAre(v.Id("<|im_end|>")));
  EXPECT_EQ(tokenizer->Encode("<|im_end|>", kPlain).size(), std::string("<|im_end|>").size());
}

TEST(Tokenizer, AClientsPieceOfThePromptCannotNameSpecialTokens) {
  const SmallVocabulary v = Letters();
  const auto tokenizer = Make(v.File().Add("tokenizer.ggml.add_space_prefix", false));
  const auto tokens = tokenizer->EncodePrompt(
      {{"<|im_start|>a", true}, {"b<|im_end|>", false}, {"<|im_end|>", true}}, false);
  // "ab" spans the boundary; of the two "<|im_end|>" only the template's is a token.
  EXPECT_EQ(tokens.front(), v.Id("<|im_start|>"));
  EXPECT_EQ(tokens[1], v.Id("ab"));
  EXPECT_EQ(tokens.back(), v.Id("<|im_end|>"));
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), v.Id("<|im_end|>")), 1);
  // One that is half the template's and half the client's is none at all.
  const auto halves = tokenizer->EncodePrompt({{"<|im_", true}, {"end|>", false}}, false);
  EXPECT_EQ(std::count(halves.begin(), halves.end(), v.Id("<|im_end|>")), 0);
}

TEST(Tokenizer, FindsTheLongestSpecialTokenFirst) {
  SmallVocabulary v = Letters();
  v.Add("<x>", 0, kControl).Add("<x><y>", 0, kControl).Add("a<x>", 0, kControl);
  const auto tokenizer = Make(v.File().Add("tokenizer.ggml.add_space_prefix", false));
  EXPECT_THAT(tokenizer->Encode("a<x><y><x>", kParse),
              ElementsAre(v.Id("a"), v.Id("<x><y>"), v.Id("<x>")));
}

TEST(Tokenizer, KeepsInvalidUtf8AsByteTokens) {
  const SmallVocabulary v = Letters();
  const auto tokenizer = Make(v.File().Add("tokenizer.ggml.add_space_prefix", false));
  const std::string texts[] = {"\xff",         "a\xe2 b",           "\xe2\x96",
                               "\xed\xa0\x80", "\xc0\x80 \xf4\x90", std::string("a\0b\0", 4),
                               "\xf0\x9f\x92"};
  for (const std::string& text : texts) {
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, kPlain), false, false), text);
  }
  EXPECT_THAT(tokenizer->Encode("a\xff", kPlain), ElementsAre(v.Id("a"), Byte(0xff)));
  EXPECT_THAT(tokenizer->Encode(std::string("\0", 1), kPlain), ElementsAre(Byte(0)));
}

TEST(Tokenizer, ControlTokensHaveTextOnlyWhenAskedFor) {
  const SmallVocabulary v = Letters();
  const auto tokenizer = Make(v.File());
  EXPECT_EQ(tokenizer->Piece(v.Id("<|im_end|>"), false), "");
  EXPECT_EQ(tokenizer->Piece(v.Id("<|im_end|>"), true), "<|im_end|>");
  EXPECT_EQ(tokenizer->Piece(v.Id("▁a"), false), " a");
  EXPECT_EQ(tokenizer->Piece(Byte(0x0a), false), "\n");
  EXPECT_EQ(tokenizer->Piece(-1, true), "");
  EXPECT_EQ(tokenizer->Piece(tokenizer->vocab_size(), true), "");
}

TEST(Tokenizer, KnowsTheTokensThatEndAGeneration) {
  SmallVocabulary v = Letters();
  v.Add("<end_of_turn>", 0, kNormal).Add("<bye>", 0, kControl);
  const auto tokenizer =
      Make(v.File().Add("tokenizer.ggml.eot_token_id", static_cast<uint32_t>(v.Id("<bye>"))));
  for (const char* text : {"</s>", "<|im_end|>", "<end_of_turn>", "<bye>"}) {
    EXPECT_TRUE(tokenizer->IsEndOfGeneration(v.Id(text))) << text;
  }
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(v.Id("<|im_start|>")));
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(-1));
  // It was marked as normal, and is treated as control.
  EXPECT_EQ(tokenizer->Piece(v.Id("<end_of_turn>"), false), "");
}

TEST(Tokenizer, WordByWordGivesTheSameTokensAsTheWholeText) {
  const SmallVocabulary v = Letters();
  SmallVocabulary crossing = v;
  crossing.Add("zz▁zz", -1);  // never made, but words can't be merged one by one any more
  const auto by_word = Make(v.File());
  const auto whole = Make(crossing.File());
  const std::string alphabet[] = {"a", "b", "c", " ", " ", "▁", "é", "\xff", "\n\n"};
  Random random(11);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (uint64_t i = random.Below(20); i > 0; --i) text += alphabet[random.Below(9)];
    ASSERT_EQ(by_word->Encode(text, kPlain), whole->Encode(text, kPlain)) << text;
  }
}

TEST(Tokenizer, TenMegabytesTakeNoRecursionAndLittleTime) {
  const SmallVocabulary v = Letters();
  const auto tokenizer = Make(v.File());
  std::string words;
  while (words.size() < 10'000'000) words += "abc ab  <|im_end|> \xff\n\n";
  for (const std::string& text :
       {words, std::string(10'000'000, 'a'), std::string(2'000'000, ' ')}) {
    const auto tokens = tokenizer->Encode(text, kPlain);
    EXPECT_GE(tokens.size() * tokenizer->max_piece_bytes(), text.size());
  }
}

TEST(Tokenizer, NamesATokenizerModelThatItDoesNotHave) {
  const auto unknown = MakeTokenizer(MetadataBuilder().Add("tokenizer.ggml.model", "bert"));
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("bert"));
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("\"llama\""));
}

// Refused with a message that has `part` in it.
void ExpectRefused(const MetadataBuilder& file, const std::string& part) {
  const auto tokenizer = MakeTokenizer(file);
  ASSERT_FALSE(tokenizer.ok()) << part;
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(part));
}

TEST(Tokenizer, RefusesBrokenVocabularies) {
  ExpectRefused(MetadataBuilder(), "tokenizer.ggml.model");
  ExpectRefused(MetadataBuilder().Add("tokenizer.ggml.model", "llama"), "tokenizer.ggml.tokens");
  ExpectRefused(MetadataBuilder()
                    .Add("tokenizer.ggml.model", "llama")
                    .Add("tokenizer.ggml.tokens", std::vector<std::string>()),
                "0 tokens");
  SmallVocabulary v = Letters();
  ExpectRefused(SmallVocabulary(v).Add("a", 0).File(), "are both \"a\"");
  SmallVocabulary nan(v);
  nan.scores[5] = std::nanf("");
  ExpectRefused(nan.File(), "NaN");
  SmallVocabulary short_scores(v);
  short_scores.scores.pop_back();
  ExpectRefused(short_scores.File(), "tokenizer.ggml.scores");
  SmallVocabulary short_types(v);
  short_types.types.pop_back();
  ExpectRefused(short_types.File(), "tokenizer.ggml.token_type");
  ExpectRefused(SmallVocabulary(v).Add("<0xZZ>", 0, kByte).File(), "marked as a byte");
  for (const char* name : {"bos", "eos", "unknown", "eot", "eom", "fim_pre"}) {
    const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
    ExpectRefused(v.File().Add(key, uint32_t{1'000'000}), key);
  }
}

TEST(Tokenizer, WorksWithoutScoresTypesOrSomeBytes) {
  const auto tokenizer = Make(
      MetadataBuilder()
          .Add("tokenizer.ggml.model", "llama")
          .Add("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "<s>", "</s>", "a", ""}));
  // No byte tokens: what is unknown is the unknown token, byte by byte.
  EXPECT_THAT(tokenizer->Encode("ab", kAdd), ElementsAre(1, 0, 0, 0, 3, 0));
  EXPECT_EQ(tokenizer->Piece(4, false), "[EMPTY_4]");
}

TEST(Tokenizer, APhi3SpecialTokenSwallowsTheSpaceBehindIt) {
  const SmallVocabulary v = Letters();
  const auto phi = Make(
      v.File().Add("general.name", "Phi-3 mini").Add("tokenizer.ggml.add_space_prefix", false));
  EXPECT_THAT(phi->Encode("<|im_end|> \n a<s> a", kParse),
              ElementsAre(v.Id("<|im_end|>"), v.Id("a"), 1, v.Id("▁a")));
}

}  // namespace
}  // namespace efedllm
