#include "text/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/random.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const char* const kFamilies[] = {"default",   "gpt-2",        "starcoder",      "falcon",
                                 "llama-bpe", "qwen2",        "tekken",         "gpt-4o",
                                 "smollm",    "deepseek-llm", "deepseek-coder", "deepseek-v3"};

std::vector<std::string> Words(const std::string& family, const std::string& text) {
  const PreTokenizer* pre_tokenizer = FindPreTokenizer(family);
  EXPECT_NE(pre_tokenizer, nullptr) << family;
  std::vector<std::string> words;
  const Characters characters(text);
  size_t begin = 0;
  for (const size_t end : pre_tokenizer->WordEnds(characters)) {
    EXPECT_LT(begin, end) << family;
    words.emplace_back(characters.Bytes(begin, end));
    begin = end;
  }
  EXPECT_EQ(begin, characters.size()) << family;
  return words;
}

TEST(PreTokenizer, Gpt2KeepsTheSpaceBeforeAWordAndSmallContractionsOnly) {
  EXPECT_THAT(Words("gpt-2", "I'll say  it's 42!? I'LL"),
              ElementsAre("I", "'ll", " say", " ", " it", "'s", " 42", "!?", " I", "'", "LL"));
  EXPECT_THAT(Words("gpt-2", "a \n b  "), ElementsAre("a", " \n", " b", "  "));
}

TEST(PreTokenizer, Llama3TakesThreeDigitsAndOneCharacterBeforeLetters) {
  EXPECT_THAT(Words("llama-bpe", "(Foo'LL 12345\n\n x \n\ny..\n"),
              ElementsAre("(Foo", "'LL", " ", "123", "45", "\n\n", " x", " \n\n", "y", "..\n"));
}

TEST(PreTokenizer, Qwen2TakesDigitsOneByOne) {
  EXPECT_THAT(Words("qwen2", "x=123"), ElementsAre("x", "=", "1", "2", "3"));
}

TEST(PreTokenizer, TekkenBeginsAWordAtACapital) {
  EXPECT_THAT(Words("tekken", "fooBarBAZ's 12 a/\n/b"),
              ElementsAre("foo", "Bar", "BAZ", "'s", " ", "1", "2", " a", "/\n/", "b"));
  // Letters beyond ASCII have no case: the first part of the expression gives "B" back, not "É".
  EXPECT_THAT(Words("tekken", "AÉB"), ElementsAre("AÉ", "B"));
}

TEST(PreTokenizer, Gpt4oKeepsContractionsWithTheirWord) {
  EXPECT_THAT(Words("gpt-4o", "He'LL IT's 1234"), ElementsAre("He'LL", " IT's", " ", "123", "4"));
}

TEST(PreTokenizer, DigitFamiliesCutDigitsFirst) {
  EXPECT_THAT(Words("starcoder", "a 12"), ElementsAre("a", " ", "1", "2"));
  EXPECT_THAT(Words("falcon", "a 12345`~b"), ElementsAre("a", " ", "123", "45", "`~", "b"));
  EXPECT_THAT(Words("falcon", "12345"), ElementsAre("123", "45"));
  EXPECT_THAT(Words("default", " 12345"), ElementsAre(" ", "123", "45"));
}

TEST(PreTokenizer, DeepSeekFamilies) {
  EXPECT_THAT(Words("deepseek-llm", "a\n\nb 東京，x  "),
              ElementsAre("a", "\n", "\n", "b", " ", "東京", "，", "x", "  "));
  EXPECT_THAT(Words("deepseek-coder", "def f(x):\n 12"),
              ElementsAre("def", " f", "(", "x", "):", "\n", " ", "1", "2"));
  EXPECT_THAT(Words("deepseek-v3", "x.foo 1234 e\u0301東カ~~é"),
              ElementsAre("x", ".foo", " ", "123", "4", " e\u0301", "東カ", "~~", "é"));
}

TEST(PreTokenizer, UnicodeSpacesAreSpaces) {
  EXPECT_THAT(Words("gpt-2", "a\u3000\u00a0b\u200bc"),
              ElementsAre("a", "\u3000", "\u00a0", "b", "\u200b", "c"));
}

TEST(PreTokenizer, WordsAreTheTextWhateverItIs) {
  const std::string alphabet[] = {"a",  "B",  "é",  "東",   "1", "٣",      " ",
                                  "\n", "\r", "'s", "'LL",  "~", "\u0301", "\u3000",
                                  "。", "$",  "/",  "\xff", "",  "."};
  Random random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (uint64_t i = random.Below(16); i > 0; --i) text += alphabet[random.Below(20)];
    for (const char* family : kFamilies) {
      std::string joined;
      for (const std::string& word : Words(family, text)) joined += word;
      const Characters characters(text);
      ASSERT_EQ(joined, std::string(characters.Bytes(0, characters.size()))) << family;
    }
  }
}

TEST(PreTokenizer, EachByteThatIsNotUtf8IsAReplacementCharacter) {
  const Characters characters("a\xe2\x96 \xff\xed\xa0\x80\xc0\x80");
  EXPECT_EQ(characters.Bytes(0, characters.size()), "a\ufffd\ufffd \ufffd\xed\xa0\x80\ufffd\ufffd");
}

TEST(PreTokenizer, LongTextsOfOneKindTakeNoRecursionAndLinearTime) {
  for (const std::string unit :
       {"a", "A", "é", "AÉ", " ", "\n", " \n", "1", "'", "!", "\u0301", "東"}) {
    std::string text;
    while (text.size() < 200'000) text += unit;
    text += "x";
    for (const char* family : kFamilies) {
      const Characters characters(text);
      EXPECT_EQ(FindPreTokenizer(family)->WordEnds(characters).back(), characters.size());
    }
  }
}

TEST(PreTokenizer, NamesAllFamiliesAndKnowsNoOther) {
  for (const char* family : kFamilies) {
    EXPECT_THAT(PreTokenizerNames(), HasSubstr(family));
  }
  EXPECT_EQ(FindPreTokenizer("no-such-family"), nullptr);
  EXPECT_EQ(FindPreTokenizer(""), FindPreTokenizer("default"));
}

}  // namespace
}  // namespace efedllm
