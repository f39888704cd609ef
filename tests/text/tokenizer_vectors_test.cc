// llama.cpp's answers for whole vocabularies, in ../shared/parity/tokenizers.
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "model/model_file.h"
#include "text/tokenizer.h"

namespace efedllm {
namespace {

using Json = nlohmann::json;
using Tokens = std::vector<int32_t>;

const std::string kFolder = EFEDLLM_SOURCE_DIR "/../shared/parity/tokenizers/";

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The first of the keys that the object has.
const Json& FirstOf(const Json& object, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (object.contains(key)) return object.at(key);
  }
  return object.at(*keys.begin());
}

std::string TestName(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}

class TokenizerVectors : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string gguf = kFolder + GetParam() + ".gguf";
    if (!std::filesystem::exists(gguf)) GTEST_SKIP() << gguf << " is not there";
    vectors_ = Json::parse(ReadAll(kFolder + GetParam() + ".json"));
    const auto file = ModelFile::Open(gguf);
    ASSERT_TRUE(file.ok()) << file.status();
    auto tokenizer = Tokenizer::Create(*file);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  Json vectors_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

class LlamaCppTestData : public TokenizerVectors {};

TEST_P(TokenizerVectors, TextsBecomeTheSameIds) {
  for (const Json& c : vectors_.at("tokenize")) {
    const std::string text = c.at("text");
    const auto encode = [&](bool add, bool parse) {
      return tokenizer_->Encode(text, {add, parse});
    };
    EXPECT_EQ(encode(false, false), c.at("add0_parse0").get<Tokens>()) << c;
    EXPECT_EQ(encode(false, true), FirstOf(c, {"add0_parse1", "add0_parse0"}).get<Tokens>()) << c;
    EXPECT_EQ(encode(true, false), FirstOf(c, {"add1_parse0", "add0_parse0"}).get<Tokens>()) << c;
    EXPECT_EQ(encode(true, true),
              FirstOf(c, {"add1_parse1", "add0_parse1", "add0_parse0"}).get<Tokens>())
        << c;
  }
}

TEST_P(TokenizerVectors, IdsBecomeTheSameBytes) {
  for (const Json& c : vectors_.at("detokenize")) {
    const Tokens ids = c.at("ids");
    const auto decode = [&](bool remove, bool special) {
      return absl::BytesToHexString(tokenizer_->Decode(ids, remove, special));
    };
    EXPECT_EQ(decode(false, false), c.at("remove0_special0")) << c;
    EXPECT_EQ(decode(false, true), FirstOf(c, {"remove0_special1", "remove0_special0"})) << c;
    EXPECT_EQ(decode(true, false), FirstOf(c, {"remove1_special0", "remove0_special0"})) << c;
    EXPECT_EQ(decode(true, true),
              FirstOf(c, {"remove1_special1", "remove0_special1", "remove0_special0"}))
        << c;
  }
}

TEST_P(TokenizerVectors, PiecesAreTheSameBytes) {
  for (const Json& c : vectors_.at("pieces")) {
    const int32_t id = c.at("id");
    EXPECT_EQ(absl::BytesToHexString(tokenizer_->Piece(id, false)), c.at("special0")) << c;
    EXPECT_EQ(absl::BytesToHexString(tokenizer_->Piece(id, true)),
              FirstOf(c, {"special1", "special0"}))
        << c;
  }
}

TEST_P(TokenizerVectors, SpecialTokensAreTheSame) {
  const Json& expected = vectors_.at("tokenizer");
  EXPECT_EQ(tokenizer_->vocab_size(), expected.at("n_vocab"));
  EXPECT_EQ(tokenizer_->bos(), expected.at("bos"));
  EXPECT_EQ(tokenizer_->eos(), expected.at("eos"));
  EXPECT_TRUE(tokenizer_->IsEndOfGeneration(expected.at("eos")));
  const int32_t end_of_turn = expected.at("eot");
  EXPECT_EQ(tokenizer_->IsEndOfGeneration(end_of_turn), end_of_turn >= 0);
}

// llama.cpp's own test data: texts in .inp, a line of ids for each in .out.
TEST_P(LlamaCppTestData, TextsBecomeTheSameIds) {
  const std::string inp = kFolder + GetParam() + ".gguf.inp";
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::string rest = ReadAll(inp);
  std::istringstream lines(ReadAll(kFolder + GetParam() + ".gguf.out"));
  for (std::string line; std::getline(lines, line);) {
    const size_t end = rest.find(separator);
    const std::string text = rest.substr(0, end);
    rest = end == std::string::npos ? "" : rest.substr(end + separator.size());
    Tokens expected;
    std::istringstream numbers(line);
    for (int32_t id; numbers >> id;) expected.push_back(id);
    EXPECT_EQ(tokenizer_->Encode(text, {false, false}), expected) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Spm, TokenizerVectors,
                         ::testing::Values("ggml-vocab-llama-spm", "ggml-vocab-phi-3",
                                           "spm-noprefix", "spm-addeos"),
                         TestName);
INSTANTIATE_TEST_SUITE_P(Spm, LlamaCppTestData,
                         ::testing::Values("ggml-vocab-llama-spm", "ggml-vocab-phi-3"), TestName);

INSTANTIATE_TEST_SUITE_P(Bpe, TokenizerVectors,
                         ::testing::Values("ggml-vocab-gpt-2", "ggml-vocab-deepseek-llm",
                                           "bpe-default", "bpe-llama-bpe", "bpe-qwen2",
                                           "bpe-smollm", "bpe-tekken", "bpe-gpt-4o",
                                           "bpe-deepseek-v3", "bpe-deepseek-r1-qwen"),
                         TestName);
INSTANTIATE_TEST_SUITE_P(Bpe, LlamaCppTestData,
                         ::testing::Values("ggml-vocab-gpt-2", "ggml-vocab-deepseek-llm"),
                         TestName);

TEST(Tokenizer, SeedlingKeepsRoundTripsAndItsMarkers) {
  const auto file = ModelFile::Open(EFEDLLM_SOURCE_DIR "/models/seedling/seedling-q8_0.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto tokenizer = Tokenizer::Create(*file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::string text = "What is the capital of Kenya? ünïcödé 東京 \n\n  x";
  EXPECT_EQ((*tokenizer)->Decode((*tokenizer)->Encode(text, {true, false}), true, false), text);
  EXPECT_EQ((*tokenizer)->Encode("<|im_start|>", {false, true}).size(), 1u);
  const Tokens end = (*tokenizer)->Encode("<|im_end|>", {false, true});
  ASSERT_EQ(end.size(), 1u);
  EXPECT_TRUE((*tokenizer)->IsEndOfGeneration(end[0]));
}

}  // namespace
}  // namespace efedllm
