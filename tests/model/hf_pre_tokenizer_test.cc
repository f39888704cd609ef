#include "model/hf_pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace efedllm {
namespace {

using nlohmann::json;

std::string Recognise(const char* text, bool ignore_merges = false) {
  const auto name = RecognisePreTokenizer(json::parse(text), ignore_merges);
  return std::string(name.ok() ? *name : name.status().message());
}

// tests/text/hf_tokenizer_test.cc has the families of which there are vocabularies.
TEST(HfPreTokenizer, KnowsTheFamilies) {
  EXPECT_EQ(Recognise(R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true})"),
            "gpt-2");
  EXPECT_EQ(Recognise(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Punctuation", "behavior": "Contiguous"},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
      {"type": "Digits", "individual_digits": false},
      {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated",
       "invert": false}]})"),
            "falcon");
  EXPECT_EQ(Recognise(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "[\r\n]"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "\\s?\\p{L}+"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "\\s?\\p{P}+"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "[一-龥ࠀ-一가-퟿]+"}, "behavior": "Isolated",
       "invert": false},
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})"),
            "deepseek-coder");
}

TEST(HfPreTokenizer, TakesMatchesThatAreKeptForMatchesThatAreIsolated) {
  const char* cl100k = R"({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "behavior": "Removed", "invert": true, "pattern": {"Regex":
       "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})";
  EXPECT_EQ(Recognise(cl100k), "smaug-bpe");
  EXPECT_EQ(Recognise(cl100k, /*ignore_merges=*/true), "llama-bpe");
}

TEST(HfPreTokenizer, RefusesOthersWithTheirText) {
  using ::testing::HasSubstr;
  EXPECT_THAT(Recognise(R"({"type": "Whitespace"})"),
              HasSubstr(R"({"type":"Whitespace"} is not supported)"));
  EXPECT_THAT(Recognise(R"({"type": "ByteLevel", "add_prefix_space": true})"),
              HasSubstr("is not supported"));
  EXPECT_THAT(Recognise(R"({"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"})"),
              HasSubstr("is not supported"));
  EXPECT_THAT(Recognise(R"({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Removed"})"),
              HasSubstr("is not supported"));
  EXPECT_THAT(Recognise(R"([])"), HasSubstr("is not supported"));
}

}  // namespace
}  // namespace efedllm
