#include "model/hf_config.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/hf_json.h"
#include "model/hf_rope.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeads = 65536;     // also values of a head
constexpr uint64_t kMaxWidth = 1u << 20;  // of all heads

// Not constexpr: string_view's constructor from a literal isn't in every build of Abseil.
const HfClass kClasses[] = {
    {.name = "LlamaForCausalLM",
     .model_type = "llama",
     .gguf_name = "llama",
     .gguf_permutes = true},
    {.name = "MistralForCausalLM",
     .model_type = "mistral",
     .gguf_name = "llama",
     .gguf_permutes = true,
     .context = 131072,
     .kv_heads = 8},
    {.name = "MixtralForCausalLM",
     .model_type = "mixtral",
     .gguf_name = "llama",
     .gguf_permutes = true,
     .rope_theta = 1e6,
     .norm_epsilon = 1e-5,
     .context = 131072,
     .kv_heads = 8},
    {.name = "Qwen2ForCausalLM", .model_type = "qwen2", .gguf_name = "qwen2", .context = 32768},
    {.name = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .gguf_name = "qwen3",
     .context = 32768,
     .head_dim = 128},
    {.name = "Qwen3MoeForCausalLM",
     .model_type = "qwen3_moe",
     .gguf_name = "qwen3moe",
     .context = 32768},
    {.name = "Gemma2ForCausalLM",
     .model_type = "gemma2",
     .gguf_name = "gemma2",
     .one_plus_norms = true,
     .post_norms = true,
     .tied = true,
     .context = 8192,
     .heads = 8,
     .kv_heads = 4,
     .head_dim = 256,
     .window = 4096,
     .attention_cap = 50,
     .final_cap = 30},
    {.name = "Gemma3ForCausalLM",
     .model_type = "gemma3_text",
     .gguf_name = "gemma3",
     .one_plus_norms = true,
     .post_norms = true,
     .tied = true,
     .rope_theta = 1e6,
     .context = 131072,
     .heads = 8,
     .kv_heads = 4,
     .head_dim = 256,
     .window = 4096},
    {.name = "Gemma3ForConditionalGeneration",
     .model_type = "gemma3",
     .gguf_name = "gemma3",
     .one_plus_norms = true,
     .post_norms = true,
     .tied = true,
     .rope_theta = 1e6,
     .context = 131072,
     .heads = 8,
     .kv_heads = 4,
     .head_dim = 256,
     .window = 4096},
    {.name = "Phi3ForCausalLM",
     .model_type = "phi3",
     .gguf_name = "phi3",
     .norm_epsilon = 1e-5,
     .context = 4096},
};

absl::Status Refused(absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat(what, " is not supported"));
}

absl::StatusOr<const HfClass*> FindClass(const json& config) {
  const json* names = FindJson(config, "architectures");
  std::string name;
  if (names != nullptr && names->is_array() && !names->empty() && (*names)[0].is_string()) {
    name = (*names)[0].get<std::string>();
  }
  ASSIGN_OR_RETURN(const std::string model_type, JsonStringOr(config, "model_type", ""));
  if (name.empty() && model_type.empty()) {
    return absl::InvalidArgumentError(
        "neither \"architectures\" nor \"model_type\" says what model it is");
  }
  for (const HfClass& kind : kClasses) {
    if (name.empty() ? kind.model_type == model_type : kind.name == name) return &kind;
  }
  return absl::UnimplementedError(
      absl::StrCat("architecture '", Printable(name.empty() ? model_type : name),
                   "' is not supported (supported: ", HfClassNames(), ")"));
}

// The keys of one architecture, from config.json's.
class Writer {
 public:
  Writer(const json& config, const HfClass& kind, ModelContents& model)
      : config_(config), kind_(kind), model_(model) {}

  absl::Status Write(HfModel& facts) {
    RETURN_IF_ERROR(CheckFeatures());
    RETURN_IF_ERROR(WriteSizes(facts));
    RETURN_IF_ERROR(WriteAttention());
    RETURN_IF_ERROR(WriteExperts(facts));
    return WriteHfRope(config_, kind_, head_dim_, model_);
  }

 private:
  void Set(absl::string_view name, MetadataValue value) {
    model_.Set(absl::StrCat(kind_.gguf_name, ".", name), std::move(value));
  }

  absl::Status CheckFeatures() {
    if (FindJson(config_, "quantization_config") != nullptr) {
      ASSIGN_OR_RETURN(
          const std::string method,
          JsonStringOr(*FindJson(config_, "quantization_config"), "quant_method", "?"));
      return Refused(absl::StrCat("\"quantization_config\" of method '", Printable(method),
                                  "' (take the original model, or a GGUF)"));
    }
    const char* key = FindJson(config_, "hidden_activation") ? "hidden_activation" : "hidden_act";
    const bool gelu = kind_.one_plus_norms;
    ASSIGN_OR_RETURN(std::string activation,
                     JsonStringOr(config_, key, gelu ? "gelu_pytorch_tanh" : "silu"));
    if (activation != (gelu ? "gelu_pytorch_tanh" : "silu")) {
      return Refused(absl::StrCat("\"", key, "\": \"", Printable(activation), "\""));
    }
    ASSIGN_OR_RETURN(const bool windows, JsonBoolOr(config_, "use_sliding_window", false));
    if (windows) return Refused("\"use_sliding_window\": true");
    return absl::OkStatus();
  }

  absl::Status WriteSizes(HfModel& facts) {
    ASSIGN_OR_RETURN(layers_, JsonUint(config_, "num_hidden_layers"));
    ASSIGN_OR_RETURN(const uint64_t width, JsonUint(config_, "hidden_size"));
    ASSIGN_OR_RETURN(const uint64_t ffn, JsonUint(config_, "intermediate_size"));
    ASSIGN_OR_RETURN(const uint64_t context,
                     JsonUintOr(config_, "max_position_embeddings", kind_.context));
    ASSIGN_OR_RETURN(const double epsilon,
                     JsonNumberOr(config_, "rms_norm_eps", kind_.norm_epsilon));
    ASSIGN_OR_RETURN(heads_, kind_.heads == 0
                                 ? JsonUint(config_, "num_attention_heads")
                                 : JsonUintOr(config_, "num_attention_heads", kind_.heads));
    if (heads_ == 0) return absl::InvalidArgumentError("\"num_attention_heads\" is 0");
    ASSIGN_OR_RETURN(
        const uint64_t kv_heads,
        JsonUintOr(config_, "num_key_value_heads", kind_.kv_heads == 0 ? heads_ : kind_.kv_heads));
    ASSIGN_OR_RETURN(head_dim_, JsonUintOr(config_, "head_dim",
                                           kind_.head_dim == 0 ? width / heads_ : kind_.head_dim));
    if (std::max({heads_, kv_heads, head_dim_}) > kMaxHeads ||
        std::max(heads_, kv_heads) * head_dim_ > kMaxWidth) {
      return absl::InvalidArgumentError(absl::StrCat(
          heads_, " heads, ", kv_heads, " for keys and values, of ", head_dim_, " values"));
    }
    facts.heads = heads_;
    facts.kv_heads = kv_heads;
    facts.head_dim = head_dim_;
    Set("block_count", layers_);
    Set("embedding_length", width);
    Set("feed_forward_length", ffn);
    Set("context_length", context);
    Set("attention.head_count", heads_);
    Set("attention.head_count_kv", kv_heads);
    Set("attention.key_length", head_dim_);
    Set("attention.value_length", head_dim_);
    Set("attention.layer_norm_rms_epsilon", epsilon);
    return absl::OkStatus();
  }

  absl::Status WriteAttention() {
    // The Qwens' window is off unless use_sliding_window says otherwise.
    const bool qwen = absl::string_view(kind_.gguf_name).substr(0, 4) == "qwen";
    ASSIGN_OR_RETURN(const uint64_t window, JsonUintOr(config_, "sliding_window", kind_.window));
    if (window != 0 && !qwen) Set("attention.sliding_window", window);
    if (!kind_.post_norms) return absl::OkStatus();

    RETURN_IF_ERROR(CheckWindowPattern());
    ASSIGN_OR_RETURN(const double scalar, JsonNumberOr(config_, "query_pre_attn_scalar",
                                                       static_cast<double>(kind_.head_dim)));
    if (!(scalar > 0))
      return absl::InvalidArgumentError("\"query_pre_attn_scalar\" is not above 0");
    Set("attention.scale", double{1.0f / std::sqrt(static_cast<float>(scalar))});
    ASSIGN_OR_RETURN(const double attention_cap,
                     SoftCap("attn_logit_softcapping", kind_.attention_cap));
    ASSIGN_OR_RETURN(const double final_cap, SoftCap("final_logit_softcapping", kind_.final_cap));
    Set("attn_logit_softcapping", attention_cap);
    Set("final_logit_softcapping", final_cap);
    return absl::OkStatus();
  }

  // Unlike elsewhere, null and missing are not the same.
  absl::StatusOr<double> SoftCap(const char* key, double otherwise) {
    if (config_.contains(key) && config_.at(key).is_null()) return 0.0;
    return JsonNumberOr(config_, key, otherwise);
  }

  // Which layers have the window is not in a GGUF: it is the architecture's.
  absl::Status CheckWindowPattern() {
    const uint64_t period = kind_.gguf_name == "gemma2" ? 2 : 6;
    const char* key = FindJson(config_, "sliding_window_pattern") ? "sliding_window_pattern"
                                                                  : "_sliding_window_pattern";
    ASSIGN_OR_RETURN(const uint64_t given, JsonUintOr(config_, key, period));
    if (given != period) return Refused(absl::StrCat("\"", key, "\": ", given));
    const json* types = FindJson(config_, "layer_types");
    if (types == nullptr || !types->is_array()) return absl::OkStatus();
    for (size_t i = 0; i < types->size(); ++i) {
      const json expected = (i + 1) % period == 0 ? "full_attention" : "sliding_attention";
      if ((*types)[i] != expected) {
        return Refused(absl::StrCat("\"layer_types\" in which layer ", i, " is not ",
                                    expected.get<std::string>()));
      }
    }
    return absl::OkStatus();
  }

  absl::Status WriteExperts(HfModel& facts) {
    const bool mixtral = kind_.model_type == "mixtral";
    if (!mixtral && kind_.gguf_name != "qwen3moe") return absl::OkStatus();
    ASSIGN_OR_RETURN(facts.experts,
                     JsonUint(config_, mixtral ? "num_local_experts" : "num_experts"));
    ASSIGN_OR_RETURN(const uint64_t used, JsonUint(config_, "num_experts_per_tok"));
    Set("expert_count", facts.experts);
    Set("expert_used_count", used);
    if (mixtral) return absl::OkStatus();

    ASSIGN_OR_RETURN(const uint64_t width, JsonUint(config_, "moe_intermediate_size"));
    Set("expert_feed_forward_length", width);
    ASSIGN_OR_RETURN(const bool normalised, JsonBoolOr(config_, "norm_topk_prob", false));
    if (!normalised) return Refused("\"norm_topk_prob\": false");
    ASSIGN_OR_RETURN(const uint64_t sparse_step, JsonUintOr(config_, "decoder_sparse_step", 1));
    if (sparse_step != 1) return Refused(absl::StrCat("\"decoder_sparse_step\": ", sparse_step));
    const json* dense = FindJson(config_, "mlp_only_layers");
    if (dense != nullptr && !dense->empty()) {
      return Refused("\"mlp_only_layers\" (layers without experts)");
    }
    return absl::OkStatus();
  }

  const json& config_;
  const HfClass& kind_;
  ModelContents& model_;
  uint64_t layers_ = 0;
  uint64_t heads_ = 0;
  uint64_t head_dim_ = 0;
};

}  // namespace

absl::StatusOr<HfModel> ReadHfConfig(const json& config, ModelContents& model) {
  HfModel facts;
  ASSIGN_OR_RETURN(facts.kind, FindClass(config));
  const json* text_config = FindJson(config, "text_config");
  const json& text = text_config == nullptr ? config : *text_config;
  if (!text.is_object()) return absl::InvalidArgumentError("\"text_config\" is not an object");
  model.Set("general.architecture", facts.kind->gguf_name);
  ASSIGN_OR_RETURN(const bool outer_tied,
                   JsonBoolOr(config, "tie_word_embeddings", facts.kind->tied));
  ASSIGN_OR_RETURN(facts.tied, JsonBoolOr(text, "tie_word_embeddings", outer_tied));
  if (&text != &config && FindJson(config, "quantization_config") != nullptr) {
    return Refused("\"quantization_config\"");
  }
  RETURN_IF_ERROR(Writer(text, *facts.kind, model).Write(facts));
  return facts;
}

std::string HfClassNames() {
  return absl::StrJoin(kClasses, ", ", [](std::string* out, const HfClass& kind) {
    out->append(kind.name.data(), kind.name.size());
  });
}

}  // namespace efedllm
