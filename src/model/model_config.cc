#include "model/model_config.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/logging.h"
#include "common/portable_math.h"
#include "common/status_macros.h"
#include "model/model_file.h"
#include "model/weights.h"

namespace efedllm {
namespace {

// Reads the metadata of an architecture, whose keys begin with its name.
class Metadata {
 public:
  Metadata(const ModelFile& file, absl::string_view architecture)
      : file_(file), architecture_(architecture) {}

  std::string Key(absl::string_view name) const { return absl::StrCat(architecture_, ".", name); }
  bool Has(absl::string_view name) const { return file_.FindValue(Key(name)) != nullptr; }

  // A whole number that must be there and fit 32 bits.
  absl::StatusOr<uint32_t> Uint(absl::string_view name) const {
    ASSIGN_OR_RETURN(const uint64_t value, file_.GetUint(Key(name)));
    if (value > std::numeric_limits<uint32_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata key ", Key(name), " is ", value, ", which no model has"));
    }
    return static_cast<uint32_t>(value);
  }
  absl::StatusOr<uint32_t> UintOr(absl::string_view name, uint32_t fallback) const {
    if (!Has(name)) return fallback;
    return Uint(name);
  }

  absl::StatusOr<float> Float(absl::string_view name) const {
    ASSIGN_OR_RETURN(const double value, file_.GetFloat(Key(name)));
    return static_cast<float>(value);
  }
  absl::StatusOr<float> FloatOr(absl::string_view name, float fallback) const {
    if (!Has(name)) return fallback;
    return Float(name);
  }

  absl::StatusOr<absl::string_view> String(absl::string_view name) const {
    return file_.GetString(Key(name));
  }
  absl::StatusOr<bool> BoolOr(absl::string_view name, bool fallback) const {
    if (!Has(name)) return fallback;
    return file_.GetBool(Key(name));
  }

 private:
  const ModelFile& file_;
  const absl::string_view architecture_;
};

absl::StatusOr<const Architecture*> ReadArchitecture(const ModelFile& file) {
  if (file.FindValue("general.architecture") == nullptr) {
    return absl::InvalidArgumentError(
        "the file does not say its architecture (general.architecture): it is not a model");
  }
  ASSIGN_OR_RETURN(const absl::string_view name, file.GetString("general.architecture"));
  const Architecture* architecture = FindArchitecture(name);
  if (architecture != nullptr) return architecture;
  return absl::UnimplementedError(
      absl::StrCat("architecture '", Printable(name),
                   "' is not supported (supported: ", ArchitectureNames(), ")"));
}

// Peng et al., arXiv 2309.00071; the magnitude is that of section 3.4.
absl::Status ReadYarn(const Metadata& metadata, RopeConfig& rope, uint32_t context) {
  rope.scaling = RopeScaling::kYarn;
  ASSIGN_OR_RETURN(rope.original_context,
                   metadata.UintOr("rope.scaling.original_context_length", context));
  ASSIGN_OR_RETURN(rope.beta_fast, metadata.FloatOr("rope.scaling.yarn_beta_fast", 32));
  ASSIGN_OR_RETURN(rope.beta_slow, metadata.FloatOr("rope.scaling.yarn_beta_slow", 1));
  ASSIGN_OR_RETURN(const float extrapolation, metadata.FloatOr("rope.scaling.yarn_ext_factor", 1));
  if (extrapolation != 1) {
    return absl::UnimplementedError(
        absl::StrCat("YaRN with ", metadata.Key("rope.scaling.yarn_ext_factor"), " of ",
                     extrapolation, " is not supported (supported: 1)"));
  }
  rope.magnitude *= static_cast<float>(1 + 0.1 * PortableLog(rope.factor));
  return absl::OkStatus();
}

absl::Status ReadRopeScaling(const Metadata& metadata, RopeConfig& rope, uint32_t context) {
  ASSIGN_OR_RETURN(float factor, metadata.FloatOr("rope.scale_linear", 1));
  ASSIGN_OR_RETURN(factor, metadata.FloatOr("rope.scaling.factor", factor));
  if (factor == 0) factor = 1;        // 0 stands for none in files
  absl::string_view type = "linear";  // what a factor without a type means
  if (metadata.Has("rope.scaling.type")) {
    ASSIGN_OR_RETURN(type, metadata.String("rope.scaling.type"));
  }
  ASSIGN_OR_RETURN(rope.magnitude, metadata.FloatOr("rope.scaling.attn_factor", 1));
  if (type == "none" || type == "longrope") return absl::OkStatus();
  rope.factor = factor;
  if (type == "yarn") return ReadYarn(metadata, rope, context);
  if (type != "linear") {
    return absl::UnimplementedError(
        absl::StrCat("rope scaling '", Printable(type),
                     "' is not supported (supported: none, linear, yarn, longrope, and the factors "
                     "of Llama 3)"));
  }
  if (factor != 1) rope.scaling = RopeScaling::kLinear;
  return absl::OkStatus();
}

absl::Status ReadRope(const Metadata& metadata, const ModelFile& file, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  ASSIGN_OR_RETURN(rope.dims, metadata.UintOr("rope.dimension_count", config.head_dim));
  ASSIGN_OR_RETURN(rope.base, metadata.FloatOr("rope.freq_base", 10000));
  RETURN_IF_ERROR(ReadRopeScaling(metadata, rope, config.context));
  if (file.FindTensor(RopeFactorsTensor(RopeScaling::kLongFactors)) != nullptr) {
    ASSIGN_OR_RETURN(const uint32_t original,
                     metadata.UintOr("rope.scaling.original_context_length", config.context));
    rope.scaling =
        config.context > original ? RopeScaling::kLongFactors : RopeScaling::kShortFactors;
  }
  return absl::OkStatus();
}

absl::Status ReadHeads(const Metadata& metadata, ModelConfig& config) {
  ASSIGN_OR_RETURN(config.heads, metadata.Uint("attention.head_count"));
  ASSIGN_OR_RETURN(config.kv_heads, metadata.UintOr("attention.head_count_kv", config.heads));
  if (config.heads == 0 || config.kv_heads == 0) {
    return absl::InvalidArgumentError("the model has no attention heads");
  }
  const uint32_t even_share = config.d_model / config.heads;
  ASSIGN_OR_RETURN(config.head_dim, metadata.UintOr("attention.key_length", even_share));
  ASSIGN_OR_RETURN(const uint32_t value_length,
                   metadata.UintOr("attention.value_length", even_share));
  if (value_length == config.head_dim) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("keys of ", config.head_dim, " and values of ",
                                               value_length,
                                               " values per head: they must be equally long"));
}

absl::Status ReadAttention(const Metadata& metadata, ModelConfig& config) {
  const Architecture& traits = config.traits();
  ASSIGN_OR_RETURN(const bool causal, metadata.BoolOr("attention.causal", true));
  if (!causal) return absl::UnimplementedError("attention that is not causal can't be run");
  RETURN_IF_ERROR(ReadHeads(metadata, config));
  const uint32_t scaled_width =
      config.layers == traits.wide_scale_layers ? config.d_model / config.heads : config.head_dim;
  ASSIGN_OR_RETURN(
      config.attention_scale,
      metadata.FloatOr("attention.scale", 1.0f / std::sqrt(static_cast<float>(scaled_width))));
  ASSIGN_OR_RETURN(config.attention_soft_cap,
                   metadata.FloatOr("attn_logit_softcapping", traits.default_attention_soft_cap));
  ASSIGN_OR_RETURN(config.final_soft_cap,
                   metadata.FloatOr("final_logit_softcapping", traits.default_final_soft_cap));
  ASSIGN_OR_RETURN(config.window,
                   metadata.UintOr("attention.sliding_window", traits.default_window));
  config.window_period = traits.window_period;
  return absl::OkStatus();
}

absl::Status ReadFeedForward(const Metadata& metadata, ModelConfig& config) {
  ASSIGN_OR_RETURN(config.experts, metadata.UintOr("expert_count", 0));
  if (!config.HasExperts()) {
    ASSIGN_OR_RETURN(config.d_ffn, metadata.Uint("feed_forward_length"));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(config.experts_used, metadata.Uint("expert_used_count"));
  const bool own_width = metadata.Has("expert_feed_forward_length");
  ASSIGN_OR_RETURN(config.d_ffn,
                   metadata.Uint(own_width ? "expert_feed_forward_length" : "feed_forward_length"));
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

absl::StatusOr<ModelConfig> Read(const ModelFile& file) {
  ASSIGN_OR_RETURN(const Architecture* const architecture, ReadArchitecture(file));
  const Metadata metadata(file, architecture->name);
  ModelConfig config;
  config.architecture = std::string(architecture->name);
  config.name = config.architecture;
  if (file.FindValue("general.name") != nullptr) {
    ASSIGN_OR_RETURN(const absl::string_view name, file.GetString("general.name"));
    config.name = Printable(name);
  }
  ASSIGN_OR_RETURN(config.layers, metadata.Uint("block_count"));
  ASSIGN_OR_RETURN(config.d_model, metadata.Uint("embedding_length"));
  ASSIGN_OR_RETURN(config.context, metadata.Uint("context_length"));
  ASSIGN_OR_RETURN(config.norm_epsilon, metadata.Float("attention.layer_norm_rms_epsilon"));
  RETURN_IF_ERROR(ReadFeedForward(metadata, config));
  RETURN_IF_ERROR(ReadAttention(metadata, config));
  RETURN_IF_ERROR(ReadRope(metadata, file, config));
  RETURN_IF_ERROR(ReadVocabulary(file, config));
  RETURN_IF_ERROR(ValidateModelConfig(config));
  RETURN_IF_ERROR(CheckModelTensors(config, file));
  return config;
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfigFromFile(const ModelFile& file) {
  absl::StatusOr<ModelConfig> config = Read(file);
  if (!config.ok()) return file.About(config.status());
  return config;
}

}  // namespace efedllm
