#include "cluster/model_config.h"

#include <initializer_list>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

absl::Status InRange(absl::string_view field, uint32_t value, uint32_t least, uint32_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the model's ", field, " is ", value,
                                                 "; it must lie in [", least, ", ", most, "]"));
}

absl::Status FirstError(std::initializer_list<absl::Status> checks) {
  for (const absl::Status& check : checks) {
    if (!check.ok()) return check;
  }
  return absl::OkStatus();
}

absl::Status InRange(absl::string_view field, float value, float least, float most) {
  if (value >= least && value <= most) return absl::OkStatus();  // no NaN is
  return absl::InvalidArgumentError(absl::StrCat("the model's ", field, " is ", value,
                                                 "; it must lie in [", least, ", ", most, "]"));
}

absl::Status ValidateRope(const RopeConfig& rope, uint32_t head_dim) {
  RETURN_IF_ERROR(FirstError({
      InRange("rope dimension count", rope.dims, 2, head_dim),
      InRange("rope base", rope.base, std::numeric_limits<float>::min(), 1e12f),
      InRange("rope scaling factor", rope.factor, 1.0f, 1024.0f),
      InRange("rope's magnitude", rope.magnitude, 1e-3f, 1e3f),
  }));
  if (rope.dims % 2 != 0) {
    return absl::InvalidArgumentError("the model's rope dimensions must be even");
  }
  if (rope.scaling > RopeScaling::kShortFactors) {
    return absl::InvalidArgumentError("the model's rope scaling is of an unknown kind");
  }
  if (rope.scaling != RopeScaling::kYarn) return absl::OkStatus();
  return FirstError({
      InRange("rope scaling's original context", rope.original_context, 1, 1u << 27),
      InRange("rope scaling's fast beta", rope.beta_fast, 1e-3f, 1e6f),
      InRange("rope scaling's slow beta", rope.beta_slow, 1e-3f, 1e6f),
      InRange("rope base under YaRN", rope.base, 1.001f, 1e12f),
  });
}

absl::Status ValidateExperts(const ModelConfig& config) {
  if (!config.HasExperts()) {
    if (config.traits().experts != Experts::kAlways) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("a model of architecture ", config.architecture, " must have experts"));
  }
  if (config.traits().experts == Experts::kNone) {
    return absl::InvalidArgumentError(
        absl::StrCat("a model of architecture ", config.architecture, " has no experts"));
  }
  RETURN_IF_ERROR(InRange("expert count", config.experts, 1, 1024));
  return InRange("used experts' count", config.experts_used, 1, config.experts);
}

}  // namespace

const Architecture& ModelConfig::traits() const {
  const Architecture* found = FindArchitecture(architecture);
  CHECK(found != nullptr);
  return *found;
}

bool ModelConfig::HasWindow(uint32_t layer) const {
  return window > 0 && (window_period == 0 || (layer + 1) % window_period != 0);
}

absl::Status ValidateModelConfig(const ModelConfig& config) {
  if (FindArchitecture(config.architecture) == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("architecture '", config.architecture,
                     "' is not supported (supported: ", ArchitectureNames(), ")"));
  }
  RETURN_IF_ERROR(FirstError({
      InRange("layer count", config.layers, 1, 1024),
      InRange("width (embedding_length)", config.d_model, 2, 1u << 17),
      InRange("head count", config.heads, 1, 4096),
      InRange("key/value head count", config.kv_heads, 1, config.heads),
      InRange("head dimension", config.head_dim, 2, 1024),
      InRange("feed-forward width", config.d_ffn, 2, 1u << 20),
      InRange("vocabulary", config.vocab, 2, 1u << 22),
      InRange("context length", config.context, 1, 1u << 27),
      InRange("attention window", config.window, 0, 1u << 27),
      InRange("attention window's period", config.window_period, 0, 1024),
      InRange("attention scale", config.attention_scale, 1e-6f, 1e3f),
      InRange("attention soft cap", config.attention_soft_cap, 0.0f, 1e6f),
      InRange("final soft cap", config.final_soft_cap, 0.0f, 1e6f),
  }));
  if (config.heads % config.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("the model's ", config.heads,
                                                   " heads are no multiple of its ",
                                                   config.kv_heads, " key/value heads"));
  }
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError("the model's head dimension must be even");
  }
  if (!(config.norm_epsilon > 0 && config.norm_epsilon < 1)) {
    return absl::InvalidArgumentError("the model's norm epsilon must lie between 0 and 1");
  }
  RETURN_IF_ERROR(ValidateRope(config.rope, config.head_dim));
  return ValidateExperts(config);
}

}  // namespace efedllm
