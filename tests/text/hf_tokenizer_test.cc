// Vocabularies as tokenizer.json tokenize like the GGUFs that they are the same as.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "model/model_file.h"
#include "model/temp_dir.h"
#include "testing/hf_folder_writer.h"
#include "text/tokenizer.h"

namespace efedllm {
namespace {

using nlohmann::json;

const std::string kFolder = EFEDLLM_SOURCE_DIR "/../shared/parity/tokenizers/";

// As the families' own tokenizer.json have it.
json Split(const std::string& regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

json ByteLevel(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

json Sequence(std::vector<json> steps) {
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

json PreTokenizerOf(const std::string& pre) {
  const std::string contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
  const std::string rest = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  const std::string rest_slash = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  const std::string upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
  const std::string lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
  const std::string head = "[^\\r\\n\\p{L}\\p{N}]?";
  if (pre == "gpt-2") return ByteLevel(true);
  if (pre == "llama-bpe") {
    return Sequence(
        {Split(contractions + "|" + head + "\\p{L}+|\\p{N}{1,3}|" + rest), ByteLevel(false)});
  }
  if (pre == "qwen2" || pre == "deepseek-r1-qwen") {
    return Sequence(
        {Split(contractions + "|" + head + "\\p{L}+|\\p{N}|" + rest), ByteLevel(false)});
  }
  if (pre == "smollm") {
    return Sequence({{{"type", "Digits"}, {"individual_digits", true}}, ByteLevel(true)});
  }
  if (pre == "tekken") {
    return Sequence({Split(head + upper + "*" + lower + "+|" + head + upper + "+" + lower +
                           "*|\\p{N}|" + rest_slash),
                     ByteLevel(false)});
  }
  if (pre == "gpt-4o") {
    return Sequence({Split(head + upper + "*" + lower + "+" + contractions + "?|" + head + upper +
                           "+" + lower + "*" + contractions + "?|\\p{N}{1,3}|" + rest_slash),
                     ByteLevel(false)});
  }
  if (pre == "deepseek-v3") {
    return Sequence(
        {Split("\\p{N}{1,3}"), Split("[一-龥぀-ゟ゠-ヿ]+"),
         Split("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"
               "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
         ByteLevel(false)});
  }
  if (pre == "deepseek-llm") {
    return Sequence({Split("[\r\n]"),
                     Split("\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿ]+"),
                     Split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),
                     Split("\\s+$"),
                     Split("[一-龥ࠀ-一가-퟿]+"),
                     {{"type", "Digits"}, {"individual_digits", true}},
                     ByteLevel(false)});
  }
  return nullptr;
}

// A model of one layer and 8 values, as folders have it: just enough to be opened.
void WriteTinyHfFolder(const ModelFile& gguf, const std::string& folder) {
  std::filesystem::create_directories(folder);
  const size_t rows = gguf.GetStrings("tokenizer.ggml.tokens")->size();
  WriteText(
      folder + "/model.safetensors",
      SafetensorsBytes(
          {{"model.embed_tokens.weight", "F16", {rows, 8}, std::string(rows * 8 * 2, '\0')}}));
  WriteText(folder + "/config.json", json{{"architectures", {"LlamaForCausalLM"}},
                                          {"num_hidden_layers", 1},
                                          {"hidden_size", 8},
                                          {"intermediate_size", 8},
                                          {"num_attention_heads", 1},
                                          {"tie_word_embeddings", true}}
                                         .dump());
  const auto pre = gguf.GetString("tokenizer.ggml.pre");
  json tokenizer = TokenizerToHf(gguf, PreTokenizerOf(pre.ok() ? std::string(*pre) : ""));
  const bool ignores = pre.ok() && (*pre == "llama-bpe" || *pre == "tekken");
  tokenizer["model"]["ignore_merges"] = ignores;
  WriteText(folder + "/tokenizer.json", tokenizer.dump());
  json config = TokenizerConfigToHf(gguf);
  if (ignores && !config.contains("add_bos_token")) config["add_bos_token"] = true;
  WriteText(folder + "/tokenizer_config.json", config.dump());
}

class HfTokenizer : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string gguf = kFolder + GetParam() + ".gguf";
    if (!std::filesystem::exists(gguf)) GTEST_SKIP() << gguf << " is not there";
    file_ = std::make_unique<ModelFile>(*ModelFile::Open(gguf));
    vectors_ = json::parse(std::ifstream(kFolder + GetParam() + ".json"));
    WriteTinyHfFolder(*file_, dir_.File("hf"));
    auto folder = ModelFile::Open(dir_.File("hf"));
    ASSERT_TRUE(folder.ok()) << folder.status();
    folder_ = std::make_unique<ModelFile>(*std::move(folder));
  }

  TempDir dir_;
  std::unique_ptr<ModelFile> file_;
  std::unique_ptr<ModelFile> folder_;
  json vectors_;
};

TEST_P(HfTokenizer, MakesTheIdsOfTheGguf) {
  const auto tokenizer = Tokenizer::Create(*folder_);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto expected = Tokenizer::Create(*file_);
  ASSERT_TRUE(expected.ok());
  size_t wrong = 0;
  for (const json& c : vectors_.at("tokenize")) {
    const std::string text = c.at("text");
    for (const bool add : {false, true}) {
      const auto ids = (*tokenizer)->Encode(text, {add, false});
      if (ids == (*expected)->Encode(text, {add, false})) continue;
      if (++wrong < 4) ADD_FAILURE() << c.at("text") << " " << json(ids) << "\n" << c;
    }
  }
  EXPECT_EQ(wrong, 0u) << "of " << vectors_.at("tokenize").size();
  EXPECT_EQ((*tokenizer)->vocab_size(), (*expected)->vocab_size());
  EXPECT_EQ((*tokenizer)->eos(), (*expected)->eos());
  for (int32_t id = 0; id < (*expected)->vocab_size(); ++id) {
    ASSERT_EQ((*tokenizer)->Piece(id, true), (*expected)->Piece(id, true)) << id;
  }
}

TEST_P(HfTokenizer, HasTheFamilysName) {
  const auto pre = file_->GetString("tokenizer.ggml.pre");
  if (!pre.ok() || *file_->GetString("tokenizer.ggml.model") == "llama") return;
  const std::string expected = *pre == "deepseek-r1-qwen" ? "qwen2" : std::string(*pre);
  EXPECT_EQ(*folder_->GetString("tokenizer.ggml.pre"), expected);
}

// A small tokenizer.json as Gemma's and Llama's are.
class SmallHfTokenizer : public ::testing::Test {
 protected:
  SmallHfTokenizer() {
    json vocab = {{"<pad>", 0}, {"<eos>", 1}, {"<bos>", 2}, {"<unk>", 3}, {"▁▁", 4}, {"<turn>", 5}};
    for (int byte = 0; byte < 256; ++byte) vocab[absl::StrFormat("<0x%02X>", byte)] = 6 + byte;
    for (const char* text : {"a", "b", "▁", "ab", "▁a", "▁ab"}) vocab[text] = vocab.size();
    tokenizer_["model"] = {{"type", "BPE"},
                           {"vocab", vocab},
                           {"merges", {"a b", "▁ a", "▁ ab"}},
                           {"unk_token", "<unk>"},
                           {"byte_fallback", true}};
    tokenizer_["normalizer"] = {
        {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
    for (const int id : {0, 1, 2, 3, 4, 5}) {
      const auto text =
          std::find_if(vocab.begin(), vocab.end(), [id](const json& v) { return v == id; });
      tokenizer_["added_tokens"].push_back(
          {{"id", id}, {"content", text.key()}, {"special", id != 4}, {"rstrip", id == 5}});
    }
    config_ = {
        {"bos_token", "<bos>"}, {"eos_token", {{"content", "<eos>"}}}, {"add_bos_token", true}};
    rows_ = vocab.size() + 4;
  }

  absl::StatusOr<ModelFile> Open() {
    const std::string folder = dir_.File("hf");
    std::filesystem::create_directories(folder);
    WriteText(
        folder + "/model.safetensors",
        SafetensorsBytes(
            {{"model.embed_tokens.weight", "F16", {rows_, 2}, std::string(rows_ * 4, '\0')}}));
    WriteText(folder + "/config.json", json{{"architectures", {"LlamaForCausalLM"}},
                                            {"num_hidden_layers", 1},
                                            {"hidden_size", 2},
                                            {"intermediate_size", 8},
                                            {"num_attention_heads", 1},
                                            {"tie_word_embeddings", true}}
                                           .dump());
    WriteText(folder + "/tokenizer.json", tokenizer_.dump());
    WriteText(folder + "/tokenizer_config.json", config_.dump());
    for (const auto& [name, text] : files_) WriteText(folder + "/" + name, text);
    return ModelFile::Open(folder);
  }

  std::string Error() {
    const auto file = Open();
    return file.ok() ? "" : std::string(file.status().message());
  }

  TempDir dir_;
  json tokenizer_;
  json config_;
  std::map<std::string, std::string> files_;
  uint64_t rows_ = 0;
};

TEST_F(SmallHfTokenizer, MergesInTheOrderOfTheList) {
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  const auto tokenizer = *Tokenizer::Create(*file);
  const auto id = [&](const char* text) {
    return tokenizer_["model"]["vocab"][text].get<int32_t>();
  };
  using Tokens = std::vector<int32_t>;
  EXPECT_EQ(tokenizer->Encode("ab ab", {true, false}), (Tokens{2, id("ab"), id("▁ab")}));
  EXPECT_EQ(tokenizer->Encode("c a", {false, false}), (Tokens{6 + 'c', id("▁a")}));
  EXPECT_EQ(tokenizer->bos(), 2);
  EXPECT_EQ(tokenizer->eos(), 1);
  EXPECT_EQ(tokenizer->vocab_size(), static_cast<int32_t>(rows_));
}

TEST_F(SmallHfTokenizer, LooksForAddedTokensInTheTextAsItIs) {
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  const auto tokenizer = *Tokenizer::Create(*file);
  const int32_t a = tokenizer_["model"]["vocab"]["a"];
  EXPECT_EQ(tokenizer->Encode("a  a", {false, false}), (std::vector<int32_t>{a, 4, a}));
  // rstrip: the white space behind it belongs to it.
  EXPECT_EQ(tokenizer->Encode("<turn> \na", {false, true}), (std::vector<int32_t>{5, a}));
}

TEST_F(SmallHfTokenizer, EndsAtEveryTokenThatTheGenerationConfigLists) {
  files_["generation_config.json"] = R"({"eos_token_id": [1, 5]})";
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  const auto tokenizer = *Tokenizer::Create(*file);
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(1));
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(5));
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(2));
}

TEST_F(SmallHfTokenizer, TakesTheChatTemplateFromWhereverItIs) {
  config_["chat_template"] = "in config";
  EXPECT_EQ(*Open()->GetString("tokenizer.chat_template"), "in config");
  config_["chat_template"] = json::parse(
      R"([{"name": "default", "template": "x"}, {"name": "tool_use", "template": "y"}])");
  EXPECT_EQ(*Open()->GetString("tokenizer.chat_template"), "x");
  EXPECT_EQ(*Open()->GetString("tokenizer.chat_template.tool_use"), "y");
  files_["chat_template.jinja"] = "own file";
  EXPECT_EQ(*Open()->GetString("tokenizer.chat_template"), "own file");
}

TEST_F(SmallHfTokenizer, AddsBosWhereThePostProcessorDoes) {
  config_.erase("add_bos_token");
  const json sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json bos = {{"SpecialToken", {{"id", "<bos>"}, {"type_id", 0}}}};
  tokenizer_["post_processor"] = {{"type", "TemplateProcessing"}, {"single", {bos, sequence}}};
  EXPECT_TRUE(*Open()->GetBool("tokenizer.ggml.add_bos_token"));
  tokenizer_["post_processor"] = {{"type", "TemplateProcessing"}, {"single", {sequence}}};
  EXPECT_FALSE(*Open()->GetBool("tokenizer.ggml.add_bos_token"));
}

TEST_F(SmallHfTokenizer, NamesWhatItCantDo) {
  using ::testing::AllOf;
  using ::testing::HasSubstr;
  tokenizer_["model"]["type"] = "Unigram";
  EXPECT_THAT(Error(), AllOf(HasSubstr("hf: tokenizer.json: "), HasSubstr("'Unigram'")));
  tokenizer_["model"]["type"] = "BPE";
  tokenizer_["normalizer"] = {{"type", "Lowercase"}};
  EXPECT_THAT(Error(), HasSubstr("normalizer Lowercase is not supported"));
  tokenizer_.erase("normalizer");
  tokenizer_["pre_tokenizer"] = ByteLevel(true);
  tokenizer_["model"]["merges"] = {"a b"};
  EXPECT_EQ(Error(), "");
  tokenizer_["pre_tokenizer"] = Sequence({Split("[a-z]+"), ByteLevel(false)});
  EXPECT_THAT(Error(), AllOf(HasSubstr("pre-tokenizer"), HasSubstr("[a-z]+")));
  tokenizer_["pre_tokenizer"] = ByteLevel(true);
  tokenizer_["model"]["merges"] = {"ab"};
  EXPECT_THAT(Error(), HasSubstr("merge 0"));
  tokenizer_["model"]["vocab"]["a"] = 1000000000;
  EXPECT_THAT(Error(), HasSubstr("has the id 1000000000, but the embedding has"));
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, HfTokenizer,
                         ::testing::Values("ggml-vocab-llama-spm", "ggml-vocab-phi-3", "spm-addeos",
                                           "ggml-vocab-gpt-2", "ggml-vocab-deepseek-llm",
                                           "bpe-llama-bpe", "bpe-qwen2", "bpe-smollm", "bpe-tekken",
                                           "bpe-gpt-4o", "bpe-deepseek-v3", "bpe-deepseek-r1-qwen"),
                         [](const auto& info) {
                           return absl::StrReplaceAll(info.param, {{"-", "_"}});
                         });

}  // namespace
}  // namespace efedllm
