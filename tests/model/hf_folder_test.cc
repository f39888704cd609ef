// What a Hugging Face folder is read as, and what is refused. That its logits are right is in
// tests/parity.
#include "model/hf_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "model/gguf_builder.h"
#include "model/model_file.h"
#include "model/temp_dir.h"
#include "model/tensor_hasher.h"
#include "tensor/half.h"
#include "testing/hf_folder_writer.h"

namespace efedllm {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string F32(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * 4};
}

std::string F16(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) {
    const uint16_t half = F32ToF16(value);
    bytes.append(reinterpret_cast<const char*>(&half), 2);
  }
  return bytes;
}

std::vector<float> FloatsOf(const ModelTensor& tensor) {
  std::vector<float> values(tensor.bytes.size() / 4);
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

class HfFolder : public ::testing::Test {
 protected:
  HfFolder() {
    config_ = {{"architectures", {"LlamaForCausalLM"}},
               {"num_hidden_layers", 1},
               {"hidden_size", 4},
               {"intermediate_size", 8},
               {"num_attention_heads", 1},
               {"rms_norm_eps", 1e-5},
               {"tie_word_embeddings", true}};
    json vocab;
    for (int byte = 0; byte < 256; ++byte) vocab[absl::StrFormat("<0x%02X>", byte)] = byte;
    tokenizer_ = {
        {"model",
         {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}, {"byte_fallback", true}}},
        {"normalizer", {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}};
    Add("model.embed_tokens.weight", {300, 4});
    Add("model.norm.weight", {4});
  }

  void Add(const std::string& name, std::vector<uint64_t> shape, std::string bytes = "") {
    uint64_t values = 1;
    for (const uint64_t size : shape) values *= size;
    if (bytes.empty()) bytes = std::string(values * 2, '\0');
    const char* dtype = bytes.size() == values * 2 ? "F16" : "F32";
    tensors_.push_back({name, dtype, std::move(shape), std::move(bytes)});
  }

  absl::StatusOr<ModelFile> Open() {
    WriteText(dir_.File("config.json"), config_.dump());
    WriteText(dir_.File("tokenizer.json"), tokenizer_.dump());
    if (!tensors_.empty()) {
      WriteText(dir_.File("model.safetensors"), SafetensorsBytes(tensors_, 1));
    }
    return ModelFile::Open(dir_.path() + "/");
  }

  std::string Error() {
    const auto file = Open();
    return file.ok() ? "" : std::string(file.status().message());
  }

  TempDir dir_;
  json config_;
  json tokenizer_;
  std::vector<HfTensor> tensors_;
};

TEST_F(HfFolder, SpeaksGgufsWords) {
  config_["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file->GetString("general.architecture"), "llama");
  EXPECT_EQ(absl::StrCat("/tmp/", *file->GetString("general.name")), dir_.path());
  EXPECT_EQ(*file->GetUint("llama.embedding_length"), 4u);
  EXPECT_EQ(*file->GetUint("llama.attention.head_count_kv"), 1u);
  EXPECT_EQ(*file->GetUint("llama.attention.key_length"), 4u);
  EXPECT_EQ(*file->GetFloat("llama.attention.layer_norm_rms_epsilon"), 1e-5);
  EXPECT_EQ(*file->GetString("llama.rope.scaling.type"), "linear");
  EXPECT_EQ(*file->GetFloat("llama.rope.scaling.factor"), 2.0);
  const auto tokens = *file->GetStrings("tokenizer.ggml.tokens");
  EXPECT_EQ(tokens.size(), 300u);
  EXPECT_EQ(tokens[299], "[PAD299]");
}

TEST_F(HfFolder, ConvertsVectorsAndLeavesMatricesInTheFile) {
  Add("model.layers.0.input_layernorm.weight", {4}, F16({1, 0.5, -2, 0}));
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  const ModelTensor& norm = *file->FindTensor("blk.0.attn_norm.weight");
  EXPECT_EQ(norm.gguf_type, 0u);
  EXPECT_THAT(FloatsOf(norm), ElementsAre(1, 0.5, -2, 0));
  const ModelTensor& embedding = *file->FindTensor("token_embd.weight");
  EXPECT_THAT(embedding.shape, ElementsAre(4, 300));
  const auto mapped = file->parts()[0].bytes;
  EXPECT_TRUE(embedding.bytes.data() >= mapped.begin() && embedding.bytes.end() <= mapped.end());
  file->DropPages(embedding);
}

TEST_F(HfFolder, AddsOneToGemmasNorms) {
  config_["architectures"] = {"Gemma2ForCausalLM"};
  config_["head_dim"] = 4;
  Add("model.layers.0.post_attention_layernorm.weight", {4}, F16({1, 0.5, -2, 0}));
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(FloatsOf(*file->FindTensor("blk.0.post_attention_norm.weight")),
              ElementsAre(2, 1.5, -1, 1));
  EXPECT_EQ(*file->GetFloat("gemma2.attention.scale"), 0.0625);  // of the default, 256
  EXPECT_EQ(*file->GetFloat("gemma2.attn_logit_softcapping"), 50);
  EXPECT_EQ(*file->GetUint("gemma2.attention.sliding_window"), 4096u);
}

TEST_F(HfFolder, PutsRowsOfQAndKIntoGgufsOrder) {
  const std::string rows = F32({0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3});
  Add("model.layers.0.self_attn.q_proj.weight", {4, 4}, rows);
  Add("model.layers.0.self_attn.k_proj.bias", {4}, F16({0, 1, 2, 3}));
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(FloatsOf(*file->FindTensor("blk.0.attn_k.bias")), ElementsAre(0, 2, 1, 3));
  const ModelTensor& q = *file->FindTensor("blk.0.attn_q.weight");
  EXPECT_EQ(q.size_bytes(), 64u);
  std::vector<uint8_t> scratch;
  const auto bytes = q.Bytes(8, 40, scratch);
  std::vector<float> values(10);
  std::memcpy(values.data(), bytes.data(), 40);
  EXPECT_THAT(values, ElementsAre(0, 0, 2, 2, 2, 2, 1, 1, 1, 1));
  file->DropPages(q);
  // The digest is that of the same tensor in a GGUF.
  const auto hashed =
      (*TensorHasher::Create(*file, ""))->Hash({"blk.0.attn_q.weight", DType::kF32, 4, 4, {}});
  ASSERT_TRUE(hashed.ok()) << hashed.status();
  EXPECT_EQ(hashed->chunks[0],
            Sha256(BytesOf(F32({0, 0, 0, 0, 2, 2, 2, 2, 1, 1, 1, 1, 3, 3, 3, 3}))));
}

TEST_F(HfFolder, JoinsExperts) {
  config_["architectures"] = {"MixtralForCausalLM"};
  config_["num_local_experts"] = 2;
  config_["num_experts_per_tok"] = 1;
  Add("model.layers.0.block_sparse_moe.gate.weight", {2, 4});
  Add("model.layers.0.block_sparse_moe.experts.1.w1.weight", {1, 4}, F16({5, 6, 7, 8}));
  EXPECT_THAT(Error(), HasSubstr("expert 0 of 2 has no matrix for blk.0.ffn_gate_exps.weight"));
  Add("model.layers.0.block_sparse_moe.experts.0.w1.weight", {1, 4}, F16({1, 2, 3, 4}));
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  const ModelTensor& gate = *file->FindTensor("blk.0.ffn_gate_exps.weight");
  EXPECT_THAT(gate.shape, ElementsAre(4, 1, 2));
  std::vector<uint8_t> scratch;
  EXPECT_EQ(gate.Bytes(0, 16, scratch), BytesOf(F16({1, 2, 3, 4, 5, 6, 7, 8})));
  EXPECT_EQ(gate.Bytes(8, 8, scratch).data(), gate.pieces[1].data());  // not copied
  EXPECT_EQ(file->FindTensor("blk.0.ffn_gate_inp.weight")->gguf_type, 0u);
}

TEST_F(HfFolder, ReadsTheTextPartOfGemma3) {
  json text = config_;
  text.erase("architectures");
  text["head_dim"] = 4;
  text["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8}};
  config_ = {{"architectures", {"Gemma3ForConditionalGeneration"}},
             {"text_config", text},
             {"vision_config", json::object()}};
  for (HfTensor& tensor : tensors_) tensor.name = "language_model." + tensor.name;
  Add("vision_tower.vision_model.head.weight", {2, 2});
  Add("model.multi_modal_projector.mm_soft_emb_norm.weight", {2});
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().size(), 2u);
  EXPECT_EQ(*file->GetString("general.architecture"), "gemma3");
  EXPECT_EQ(*file->GetFloat("gemma3.rope.freq_base"), 1e6);
  EXPECT_EQ(*file->GetFloat("gemma3.rope.scaling.factor"), 8);
  EXPECT_EQ(*file->GetUint("gemma3.attention.head_count_kv"), 4u);  // the class's own default
}

TEST_F(HfFolder, ReadsRopeScalings) {
  config_["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 32}};
  config_["max_position_embeddings"] = 32;
  const auto yarn = Open();
  ASSERT_TRUE(yarn.ok()) << yarn.status();
  EXPECT_EQ(*yarn->GetString("llama.rope.scaling.type"), "yarn");
  EXPECT_EQ(*yarn->GetUint("llama.rope.scaling.original_context_length"), 32u);
  EXPECT_EQ(*yarn->GetUint("llama.context_length"), 128u);

  config_["rope_scaling"] = {
      {"type", "longrope"}, {"long_factor", {2, 3}}, {"short_factor", {1, 1.5}}};
  config_["architectures"] = {"Phi3ForCausalLM"};
  config_["original_max_position_embeddings"] = 8;
  const auto phi = Open();
  ASSERT_TRUE(phi.ok()) << phi.status();
  EXPECT_THAT(FloatsOf(*phi->FindTensor("rope_factors_long.weight")), ElementsAre(2, 3));
  EXPECT_THAT(FloatsOf(*phi->FindTensor("rope_factors_short.weight")), ElementsAre(1, 1.5));
  EXPECT_NEAR(*phi->GetFloat("phi3.rope.scaling.attn_factor"), std::sqrt(1 + 2.0 / 3), 1e-9);

  config_["rope_scaling"]["short_factor"] = {1};
  EXPECT_THAT(Error(), HasSubstr("\"short_factor\" of \"rope_scaling\" is not a list of 2"));
  config_.erase("rope_scaling");
  config_["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  EXPECT_EQ(*Open()->GetFloat("phi3.rope.freq_base"), 5e5);
}

TEST_F(HfFolder, NamesWhatItCantRun) {
  const auto with = [this](const char* key, const json& value) {
    const json before = config_;
    config_[key] = value;
    std::string error = Error();
    config_ = before;
    return error;
  };
  EXPECT_THAT(with("architectures", {"MambaForCausalLM"}),
              AllOf(HasSubstr("config.json: architecture 'MambaForCausalLM' is not supported"),
                    HasSubstr("Qwen3MoeForCausalLM")));
  EXPECT_THAT(with("quantization_config", {{"quant_method", "gptq"}}), HasSubstr("'gptq'"));
  EXPECT_THAT(with("hidden_act", "relu"), HasSubstr("\"hidden_act\": \"relu\" is not supported"));
  EXPECT_THAT(with("rope_scaling", {{"type", "dynamic"}, {"factor", 2}}),
              HasSubstr("rope_scaling of type 'dynamic' is not supported"));
  EXPECT_THAT(with("hidden_size", nullptr), HasSubstr("\"hidden_size\" is missing"));
  EXPECT_THAT(with("hidden_size", "4"), HasSubstr("\"hidden_size\" is not a whole number"));
  EXPECT_THAT(with("num_attention_heads", 0), HasSubstr("\"num_attention_heads\" is 0"));
  EXPECT_THAT(with("num_attention_heads", uint64_t{1} << 60), HasSubstr(" heads, "));
  EXPECT_THAT(with("tie_word_embeddings", false), HasSubstr("no tensor lm_head.weight"));
  Add("model.layers.0.self_attn.sinks", {4});
  EXPECT_THAT(Error(), HasSubstr("tensor model.layers.0.self_attn.sinks is none that a "
                                 "LlamaForCausalLM has"));
  tensors_.back() = {"model.layers.0.mlp.up_proj.weight", "F8_E4M3", {2, 2}, "1234"};
  EXPECT_THAT(Error(), HasSubstr("tensor model.layers.0.mlp.up_proj.weight has the type F8_E4M3"));
}

TEST_F(HfFolder, NamesTheFileThatIsMissing) {
  EXPECT_THAT(std::string(ModelFile::Open(dir_.path()).status().message()),
              AllOf(HasSubstr(dir_.path()), HasSubstr("no config.json")));
  tensors_.clear();
  EXPECT_THAT(Error(), HasSubstr("no model.safetensors and no model.safetensors.index.json"));
  WriteText(dir_.File("model.safetensors.index.json"),
            R"({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}})");
  EXPECT_THAT(Error(), HasSubstr("model-00001-of-00002.safetensors is missing"));
  WriteText(dir_.File("model.safetensors.index.json"),
            R"({"weight_map": {"model.norm.weight": "../../etc/passwd"}})");
  EXPECT_THAT(Error(), HasSubstr("which is no file of this folder"));
  Add("model.embed_tokens.weight", {300, 4});
  WriteText(dir_.File("model.safetensors.index.json"),
            R"({"weight_map": {"model.norm.weight": "model.safetensors"}})");
  EXPECT_THAT(Error(), HasSubstr("model.safetensors: tensor model.norm.weight is not in it"));
}

TEST_F(HfFolder, NamesTheFileThatIsDamaged) {
  ASSERT_TRUE(Open().ok());
  WriteText(dir_.File("model.safetensors"), "version https://git-lfs.github.com/spec/v1");
  tensors_.clear();
  EXPECT_THAT(Error(), HasSubstr("/model.safetensors: safetensors: "));
  WriteText(dir_.File("generation_config.json"), "{");
  EXPECT_THAT(Error(), HasSubstr("/model.safetensors: safetensors: "));
}

}  // namespace
}  // namespace efedllm
