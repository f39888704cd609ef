#include "cluster/model_config.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace efedllm {
namespace {

absl::Status InRange(absl::string_view field, uint64_t value, uint64_t least, uint64_t most) {
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

}  // namespace

absl::Status ValidateModelConfig(const ModelConfig& config) {
  const absl::Status ranges = FirstError({
      InRange("layer count", config.layers, 1, 1024),
      InRange("width (embedding_length)", config.d_model, 2, 1u << 17),
      InRange("head count", config.heads, 1, 4096),
      InRange("key/value head count", config.kv_heads, 1, config.heads),
      InRange("head dimension", config.head_dim, 2, 1024),
      InRange("feed-forward width", config.d_ffn, 2, 1u << 20),
      InRange("vocabulary", config.vocab, 2, 1u << 22),
      InRange("context length", config.context, 1, 1u << 27),
      InRange("rope dimension count", config.rope_dims, 2, config.head_dim),
  });
  if (!ranges.ok()) return ranges;
  if (config.heads % config.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("the model's ", config.heads,
                                                   " heads are no multiple of its ",
                                                   config.kv_heads, " key/value heads"));
  }
  if (config.head_dim % 2 != 0 || config.rope_dims % 2 != 0) {
    return absl::InvalidArgumentError("the model's head and rope dimensions must be even");
  }
  if (!(config.rope_base > 0) || !std::isfinite(config.rope_base)) {
    return absl::InvalidArgumentError("the model's rope base must be positive and finite");
  }
  if (!(config.rope_scale >= 1 && config.rope_scale <= 1024)) {
    return absl::InvalidArgumentError("the model's rope scale must lie in [1, 1024]");
  }
  if (!(config.norm_epsilon > 0 && config.norm_epsilon < 1)) {
    return absl::InvalidArgumentError("the model's norm epsilon must lie between 0 and 1");
  }
  return absl::OkStatus();
}

}  // namespace efedllm
