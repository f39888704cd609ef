// Writes Hugging Face folders for tests, from GGUF models: what convert_hf_to_gguf.py does, undone.
#ifndef EFEDLLM_TESTS_TESTING_HF_FOLDER_WRITER_H_
#define EFEDLLM_TESTS_TESTING_HF_FOLDER_WRITER_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "model/model_file.h"
#include "tensor/blocks.h"
#include "tensor/dtype.h"

namespace efedllm {

struct HfTensor {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;  // outermost first
  std::string bytes;
};

inline void WriteText(const std::string& path, absl::string_view text) {
  std::ofstream(path, std::ios::binary) << std::string(text);
}

// pad: behind the header, which moves the tensors to any alignment.
inline std::string SafetensorsBytes(const std::vector<HfTensor>& tensors, size_t pad = 0) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const HfTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  const std::string text = header.dump() + std::string(pad, ' ');
  const uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + text + data;
}

// Of the tensors of a layer and around them.
inline std::map<std::string, std::string> HfNames(absl::string_view arch, bool mixtral) {
  const bool gemma = absl::StartsWith(arch, "gemma");
  return {
      {"attn_norm", "input_layernorm"},
      {"attn_q", "self_attn.q_proj"},
      {"attn_k", "self_attn.k_proj"},
      {"attn_v", "self_attn.v_proj"},
      {"attn_output", "self_attn.o_proj"},
      {"attn_qkv", "self_attn.qkv_proj"},
      {"attn_q_norm", "self_attn.q_norm"},
      {"attn_k_norm", "self_attn.k_norm"},
      {"ffn_norm", gemma ? "pre_feedforward_layernorm" : "post_attention_layernorm"},
      {"post_attention_norm", "post_attention_layernorm"},
      {"post_ffw_norm", "post_feedforward_layernorm"},
      {"ffn_gate", "mlp.gate_proj"},
      {"ffn_up", arch == "phi3" ? "mlp.gate_up_proj" : "mlp.up_proj"},
      {"ffn_down", "mlp.down_proj"},
      {"ffn_gate_inp", mixtral ? "block_sparse_moe.gate" : "mlp.gate"},
      {"ffn_gate_exps", mixtral ? "w1" : "gate_proj"},
      {"ffn_down_exps", mixtral ? "w2" : "down_proj"},
      {"ffn_up_exps", mixtral ? "w3" : "up_proj"},
      {"token_embd", "model.embed_tokens"},
      {"output_norm", "model.norm"},
      {"output", "lm_head"},
  };
}

inline void ConvertToF32(HfTensor& tensor) {
  if (tensor.dtype == "F32") return;
  std::vector<float> values(tensor.bytes.size() / 2);
  DequantizeRow(tensor.dtype == "F16" ? DType::kF16 : DType::kBF16,
                reinterpret_cast<const uint8_t*>(tensor.bytes.data()), values.size(),
                values.data());
  tensor.bytes.assign(reinterpret_cast<const char*>(values.data()), values.size() * 4);
  tensor.dtype = "F32";
}

// Gemma stores a norm's weights, which are F32, without the 1 that belongs to them.
inline void TakeOneOff(HfTensor& tensor) {
  for (size_t i = 0; i + 4 <= tensor.bytes.size(); i += 4) {
    float value = 0;
    std::memcpy(&value, tensor.bytes.data() + i, 4);
    value -= 1;
    std::memcpy(tensor.bytes.data() + i, &value, 4);
  }
}

// Rows of Q or K, from neighbours to halves.
inline void RowsToHalves(uint64_t heads, HfTensor& tensor) {
  const uint64_t half = tensor.shape[0] / heads / 2;
  const uint64_t row = tensor.bytes.size() / tensor.shape[0];
  const std::string neighbours = tensor.bytes;
  for (uint64_t i = 0; i < tensor.shape[0]; ++i) {
    const uint64_t in_head = i % (2 * half);
    const uint64_t from = i - in_head + 2 * (in_head % half) + in_head / half;
    tensor.bytes.replace(i * row, row, neighbours, from * row, row);
  }
}

inline std::vector<HfTensor> TensorsToHf(const ModelFile& gguf, bool as_f32) {
  const std::string arch(*gguf.GetString("general.architecture"));
  const bool mixtral = arch == "llama" && gguf.FindValue("llama.expert_count") != nullptr;
  const std::map<std::string, std::string> names = HfNames(arch, mixtral);
  std::vector<HfTensor> tensors;
  for (const ModelTensor& tensor : gguf.tensors()) {
    std::string name(tensor.name);
    if (absl::StartsWith(name, "rope_f")) continue;  // from config.json
    std::string prefix;
    if (absl::StartsWith(name, "blk.")) {
      const size_t dot = name.find('.', 4);
      prefix = absl::StrCat("model.layers.", name.substr(4, dot - 4), ".");
      name = name.substr(dot + 1);
    }
    const size_t dot = name.rfind('.');
    const std::string part = name.substr(0, dot);
    const std::string suffix = name.substr(dot);
    HfTensor hf{prefix + names.at(part) + suffix,
                std::string(DTypeName(*DTypeFromGguf(tensor.gguf_type))),
                {tensor.shape.rbegin(), tensor.shape.rend()},
                std::string(tensor.bytes.begin(), tensor.bytes.end())};
    if (as_f32) ConvertToF32(hf);
    if (absl::StartsWith(arch, "gemma") && absl::EndsWith(part, "norm")) TakeOneOff(hf);
    if (arch == "llama" && (part == "attn_q" || part == "attn_k")) {
      const bool q = part == "attn_q";
      RowsToHalves(
          *gguf.GetUint(q ? "llama.attention.head_count" : "llama.attention.head_count_kv"), hf);
    }
    if (!absl::EndsWith(part, "_exps")) {
      tensors.push_back(std::move(hf));
      continue;
    }
    const uint64_t bytes = hf.bytes.size() / hf.shape[0];
    for (uint64_t e = 0; e < hf.shape[0]; ++e) {
      tensors.push_back({absl::StrCat(prefix, mixtral ? "block_sparse_moe." : "mlp.", "experts.", e,
                                      ".", names.at(part), suffix),
                         hf.dtype,
                         {hf.shape[1], hf.shape[2]},
                         hf.bytes.substr(e * bytes, bytes)});
    }
  }
  return tensors;
}

inline nlohmann::json ConfigToHf(const ModelFile& gguf) {
  using nlohmann::json;
  const std::string arch(*gguf.GetString("general.architecture"));
  const auto number = [&](const std::string& key) {
    const std::string full = arch + "." + key;
    return gguf.FindValue(full) == nullptr ? json() : json(*gguf.GetFloat(full));
  };
  const bool mixtral = arch == "llama" && gguf.FindValue("llama.expert_count") != nullptr;
  const std::map<std::string, std::string> classes = {
      {"llama", mixtral ? "MixtralForCausalLM" : "LlamaForCausalLM"},
      {"qwen2", "Qwen2ForCausalLM"},
      {"qwen3", "Qwen3ForCausalLM"},
      {"qwen3moe", "Qwen3MoeForCausalLM"},
      {"gemma2", "Gemma2ForCausalLM"},
      {"gemma3", "Gemma3ForCausalLM"},
      {"phi3", "Phi3ForCausalLM"}};
  json config = {{"architectures", {classes.at(arch)}}};
  const std::pair<const char*, const char*> keys[] = {
      {"num_hidden_layers", "block_count"},
      {"hidden_size", "embedding_length"},
      {"intermediate_size", "feed_forward_length"},
      {"max_position_embeddings", "context_length"},
      {"num_attention_heads", "attention.head_count"},
      {"num_key_value_heads", "attention.head_count_kv"},
      {"head_dim", "attention.key_length"},
      {"rms_norm_eps", "attention.layer_norm_rms_epsilon"},
      {"rope_theta", "rope.freq_base"},
      {"sliding_window", "attention.sliding_window"},
      {"attn_logit_softcapping", "attn_logit_softcapping"},
      {"final_logit_softcapping", "final_logit_softcapping"},
      {"num_experts_per_tok", "expert_used_count"},
      {mixtral ? "num_local_experts" : "num_experts", "expert_count"},
      {"moe_intermediate_size", "expert_feed_forward_length"},
  };
  for (const auto& [hf, key] : keys) {
    if (const json value = number(key); !value.is_null()) config[hf] = value;
  }
  config["norm_topk_prob"] = true;
  if (absl::StartsWith(arch, "gemma")) {
    config["query_pre_attn_scalar"] =
        config.contains("head_dim")
            ? config["head_dim"].get<double>()
            : config["hidden_size"].get<double>() / config["num_attention_heads"].get<double>();
  }
  config["tie_word_embeddings"] = gguf.FindTensor("output.weight") == nullptr;
  if (const auto type = gguf.GetString(arch + ".rope.scaling.type"); type.ok() && *type != "none") {
    config["rope_scaling"] = {{"rope_type", std::string(*type)},
                              {"factor", number("rope.scaling.factor")}};
    const json original = number("rope.scaling.original_context_length");
    if (!original.is_null()) {
      config["rope_scaling"]["original_max_position_embeddings"] = original;
    }
  }
  return config;
}

// The merges that transformers derives from a SentencePiece vocabulary: all pairs of tokens that
// make a token, in the order of its score.
inline nlohmann::json MergesOfScores(absl::Span<const absl::string_view> tokens,
                                     const std::vector<double>& scores,
                                     const std::vector<double>& types) {
  std::map<absl::string_view, size_t> ids;
  for (size_t i = 0; i < tokens.size(); ++i) ids[tokens[i]] = i;
  std::vector<std::tuple<double, size_t, size_t>> pairs;  // minus score, left, right
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (types[i] != 1) continue;
    for (size_t cut = 1; cut < tokens[i].size(); ++cut) {
      if ((tokens[i][cut] & 0xc0) == 0x80) continue;  // inside of a character
      const auto left = ids.find(tokens[i].substr(0, cut));
      const auto right = ids.find(tokens[i].substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      pairs.emplace_back(-scores[i], left->second, right->second);
    }
  }
  std::sort(pairs.begin(), pairs.end());
  nlohmann::json merges = nlohmann::json::array();
  for (const auto& [score, left, right] : pairs) {
    merges.push_back({std::string(tokens[left]), std::string(tokens[right])});
  }
  return merges;
}

// pre_tokenizer: of a byte-level vocabulary.
inline nlohmann::json TokenizerToHf(const ModelFile& gguf, const nlohmann::json& pre_tokenizer) {
  using nlohmann::json;
  const auto tokens = *gguf.GetStrings("tokenizer.ggml.tokens");
  const std::vector<double> types = *gguf.GetNumbers("tokenizer.ggml.token_type");
  const bool spm = *gguf.GetString("tokenizer.ggml.model") == "llama";
  json vocab = json::object();
  json added = json::array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string text(tokens[i]);
    if (types[i] == 5) continue;  // unused
    if (types[i] == 2 || types[i] == 3 || types[i] == 4) {
      added.push_back({{"id", i},
                       {"content", text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", types[i] != 4}});
    }
    vocab[text] = i;
  }
  json tokenizer = {{"version", "1.0"}, {"added_tokens", added}};
  json& model = tokenizer["model"];
  model = {{"type", "BPE"}, {"byte_fallback", spm}, {"unk_token", spm ? json("<unk>") : json()}};
  if (spm) {
    const auto prefix = gguf.GetBool("tokenizer.ggml.add_space_prefix");
    json steps = json::array();
    if (!prefix.ok() || *prefix) steps.push_back({{"type", "Prepend"}, {"prepend", "▁"}});
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}});
    tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
    const std::vector<double> scores = *gguf.GetNumbers("tokenizer.ggml.scores");
    model["merges"] = MergesOfScores(tokens, scores, types);
  } else {
    tokenizer["pre_tokenizer"] = pre_tokenizer;
    tokenizer["decoder"] = {{"type", "ByteLevel"}};
    json merges = json::array();
    const auto lines = *gguf.GetStrings("tokenizer.ggml.merges");
    for (const absl::string_view merge : lines) {
      merges.push_back(std::string(merge));
    }
    model["merges"] = std::move(merges);
  }
  model["vocab"] = std::move(vocab);
  return tokenizer;
}

inline nlohmann::json TokenizerConfigToHf(const ModelFile& gguf) {
  nlohmann::json config = nlohmann::json::object();
  const auto tokens = *gguf.GetStrings("tokenizer.ggml.tokens");
  for (const char* kind : {"bos", "eos"}) {
    const auto id = gguf.GetUint(absl::StrCat("tokenizer.ggml.", kind, "_token_id"));
    if (id.ok()) config[absl::StrCat(kind, "_token")] = std::string(tokens[*id]);
    const auto add = gguf.GetBool(absl::StrCat("tokenizer.ggml.add_", kind, "_token"));
    if (add.ok()) config[absl::StrCat("add_", kind, "_token")] = *add;
  }
  return config;
}

struct HfFolderOptions {
  bool as_f32 = false;  // all weights
  size_t shards = 1;
  nlohmann::json pre_tokenizer;
};

// gguf: F32, F16 and BF16 tensors, and a vocabulary. folder is made.
inline void WriteHfFolder(const ModelFile& gguf, const std::string& folder,
                          const HfFolderOptions& options = {}) {
  std::filesystem::create_directories(folder);
  WriteText(folder + "/config.json", ConfigToHf(gguf).dump(2));
  WriteText(folder + "/tokenizer.json", TokenizerToHf(gguf, options.pre_tokenizer).dump());
  WriteText(folder + "/tokenizer_config.json", TokenizerConfigToHf(gguf).dump());
  const std::vector<HfTensor> tensors = TensorsToHf(gguf, options.as_f32);
  if (options.shards == 1) {
    WriteText(folder + "/model.safetensors", SafetensorsBytes(tensors));
    return;
  }
  nlohmann::json index;
  std::vector<std::vector<HfTensor>> shards(options.shards);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const size_t shard = i * options.shards / tensors.size();
    index["weight_map"][tensors[i].name] = absl::StrCat("model-", shard, ".safetensors");
    shards[shard].push_back(tensors[i]);
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    WriteText(absl::StrCat(folder, "/model-", i, ".safetensors"), SafetensorsBytes(shards[i], i));
  }
  WriteText(folder + "/model.safetensors.index.json", index.dump());
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_TESTING_HF_FOLDER_WRITER_H_
