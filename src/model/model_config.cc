#include "model/model_config.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/model_file.h"
#include "model/weights.h"

namespace efedllm {
namespace {

// A whole number that must be there and fit 32 bits.
absl::StatusOr<uint32_t> RequiredUint(const ModelFile& file, absl::string_view key) {
  ASSIGN_OR_RETURN(const uint64_t value, file.GetUint(key));
  if (value > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("GGUF metadata key ", key, " is ", value, ", which no model has"));
  }
  return static_cast<uint32_t>(value);
}

absl::StatusOr<uint32_t> UintOr(const ModelFile& file, absl::string_view key, uint32_t fallback) {
  if (file.FindValue(key) == nullptr) return fallback;
  return RequiredUint(file, key);
}

absl::StatusOr<double> FloatOr(const ModelFile& file, absl::string_view key, double fallback) {
  if (file.FindValue(key) == nullptr) return fallback;
  return file.GetFloat(key);
}

absl::Status CheckArchitecture(const ModelFile& file) {
  if (file.FindValue("split.count") != nullptr) {
    ASSIGN_OR_RETURN(const uint64_t parts, file.GetUint("split.count"));
    if (parts > 1) {
      return absl::UnimplementedError(
          absl::StrCat("the GGUF is one of ", parts,
                       " parts of a split model; join them first (llama-gguf-split --merge)"));
    }
  }
  if (file.FindValue("general.architecture") == nullptr) {
    return absl::InvalidArgumentError(
        "the GGUF does not say its architecture (general.architecture): it is not a model");
  }
  ASSIGN_OR_RETURN(const absl::string_view architecture, file.GetString("general.architecture"));
  if (architecture != "llama") {
    return absl::UnimplementedError(
        absl::StrCat("architecture '", Printable(architecture),
                     "' can't be run; supported: 'llama' (Llama 1 to 3, Mistral, SmolLM ...)"));
  }
  return absl::OkStatus();
}

// Features that llama files may ask for and that this build can't compute.
absl::Status CheckFeatures(const ModelFile& file) {
  ASSIGN_OR_RETURN(const uint32_t experts, UintOr(file, "llama.expert_count", 0));
  if (experts > 0) {
    return absl::UnimplementedError(
        absl::StrCat("the model has ", experts,
                     " experts per layer (llama.expert_count): mixtures of experts "
                     "can't be run"));
  }
  if (file.FindValue("llama.attention.causal") != nullptr) {
    ASSIGN_OR_RETURN(const bool causal, file.GetBool("llama.attention.causal"));
    if (!causal) return absl::UnimplementedError("attention that is not causal can't be run");
  }
  return absl::OkStatus();
}

// No scaling, or the linear one.
absl::Status ReadRopeScale(const ModelFile& file, ModelConfig& config) {
  ASSIGN_OR_RETURN(double factor, FloatOr(file, "llama.rope.scale_linear", 1));
  ASSIGN_OR_RETURN(factor, FloatOr(file, "llama.rope.scaling.factor", factor));
  absl::string_view type = "linear";  // what a factor without a type means
  if (file.FindValue("llama.rope.scaling.type") != nullptr) {
    ASSIGN_OR_RETURN(type, file.GetString("llama.rope.scaling.type"));
  }
  if (type == "none") return absl::OkStatus();
  if (type != "linear") {
    return absl::UnimplementedError(absl::StrCat("rope scaling '", Printable(type),
                                                 "' can't be computed; supported: 'linear'"));
  }
  config.rope_scale = factor == 0 ? 1 : static_cast<float>(factor);  // 0 stands for none in files
  return absl::OkStatus();
}

absl::Status ReadHeads(const ModelFile& file, ModelConfig& config) {
  ASSIGN_OR_RETURN(config.heads, RequiredUint(file, "llama.attention.head_count"));
  ASSIGN_OR_RETURN(config.kv_heads, UintOr(file, "llama.attention.head_count_kv", config.heads));
  if (config.heads == 0 || config.kv_heads == 0) {
    return absl::InvalidArgumentError("the model has no attention heads");
  }
  ASSIGN_OR_RETURN(config.head_dim,
                   UintOr(file, "llama.attention.key_length", config.d_model / config.heads));
  ASSIGN_OR_RETURN(const uint32_t value_length,
                   UintOr(file, "llama.attention.value_length", config.d_model / config.heads));
  if (value_length != config.head_dim) {
    return absl::UnimplementedError(absl::StrCat("keys of ", config.head_dim, " and values of ",
                                                 value_length,
                                                 " values per head: they must be equally long"));
  }
  ASSIGN_OR_RETURN(config.rope_dims, UintOr(file, "llama.rope.dimension_count", config.head_dim));
  return absl::OkStatus();
}

absl::Status ReadVocabulary(const ModelFile& file, ModelConfig& config) {
  const ModelTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    return absl::InvalidArgumentError(
        "the GGUF has no tensor token_embd.weight [vocabulary, width]");
  }
  const uint64_t rows = embedding->shape[1];
  if (file.FindValue("tokenizer.ggml.tokens") != nullptr) {
    ASSIGN_OR_RETURN(const auto tokens, file.GetStrings("tokenizer.ggml.tokens"));
    if (tokens.size() != rows) {
      return absl::InvalidArgumentError(absl::StrCat("tensor token_embd.weight has ", rows,
                                                     " rows, but the tokenizer has ", tokens.size(),
                                                     " tokens"));
    }
  }
  if (rows > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat("a vocabulary of ", rows, " tokens"));
  }
  config.vocab = static_cast<uint32_t>(rows);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfigFromGguf(const ModelFile& file) {
  RETURN_IF_ERROR(CheckArchitecture(file));
  RETURN_IF_ERROR(CheckFeatures(file));
  ModelConfig config;
  config.architecture = "llama";
  config.name = config.architecture;
  if (file.FindValue("general.name") != nullptr) {
    ASSIGN_OR_RETURN(const absl::string_view name, file.GetString("general.name"));
    config.name = Printable(name);
  }
  ASSIGN_OR_RETURN(config.layers, RequiredUint(file, "llama.block_count"));
  ASSIGN_OR_RETURN(config.d_model, RequiredUint(file, "llama.embedding_length"));
  ASSIGN_OR_RETURN(config.d_ffn, RequiredUint(file, "llama.feed_forward_length"));
  ASSIGN_OR_RETURN(config.context, RequiredUint(file, "llama.context_length"));
  RETURN_IF_ERROR(ReadHeads(file, config));
  RETURN_IF_ERROR(ReadRopeScale(file, config));
  RETURN_IF_ERROR(ReadVocabulary(file, config));
  ASSIGN_OR_RETURN(const double base, FloatOr(file, "llama.rope.freq_base", 10000));
  config.rope_base = static_cast<float>(base);
  ASSIGN_OR_RETURN(const double epsilon, file.GetFloat("llama.attention.layer_norm_rms_epsilon"));
  config.norm_epsilon = static_cast<float>(epsilon);
  RETURN_IF_ERROR(ValidateModelConfig(config));
  RETURN_IF_ERROR(CheckModelTensors(config, file));
  return config;
}

}  // namespace efedllm
