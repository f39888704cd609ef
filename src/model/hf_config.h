// config.json of a Hugging Face folder: which architecture it is, and its metadata in GGUF's words.
#ifndef EFEDLLM_MODEL_HF_CONFIG_H_
#define EFEDLLM_MODEL_HF_CONFIG_H_

#include <cstdint>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/model_file.h"

namespace efedllm {

// What a class of the transformers library is in GGUF's words, and what it assumes where
// config.json is silent.
struct HfClass {
  absl::string_view name;        // config.json's "architectures"
  absl::string_view model_type;  // config.json's "model_type", where "architectures" is missing
  absl::string_view gguf_name;   // general.architecture
  // RoPE turns the two halves of a head; GGUF has the rows of Q and K in such an order that it
  // turns neighbours.
  bool gguf_permutes = false;
  bool one_plus_norms = false;  // what is stored of a norm is its weight minus 1
  bool post_norms = false;      // "post_attention_layernorm" is what its name says
  bool tied = false;
  double rope_theta = 10000;
  double norm_epsilon = 1e-6;
  uint64_t context = 2048;
  uint64_t heads = 0;     // 0: config.json must say it
  uint64_t kv_heads = 0;  // 0: as many as heads
  uint64_t head_dim = 0;  // 0: hidden_size / heads
  uint64_t window = 0;    // 0: none
  double attention_cap = 0;
  double final_cap = 0;
};

// What the weights' reader needs to know.
struct HfModel {
  const HfClass* kind = nullptr;
  bool tied = false;  // lm_head is the embedding
  uint64_t experts = 0;
  uint64_t heads = 0;
  uint64_t kv_heads = 0;
  uint64_t head_dim = 0;
};

// Sets the metadata of general and of the architecture, and RoPE's factors as tensors.
// Unimplemented: a class or feature that we can't run, by name. InvalidArgument: a missing or
// absurd key.
absl::StatusOr<HfModel> ReadHfConfig(const nlohmann::json& config, ModelContents& model);

// The names of all classes, for a message.
std::string HfClassNames();

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_HF_CONFIG_H_
