#include "wire/model_wire.h"

#include <algorithm>

#include "common/status_macros.h"
#include "wire/field_checks.h"

namespace efedllm {
namespace {

constexpr size_t kMaxNameBytes = 64;

// Checked with the rest of the model's config.
RopeConfig RopeFromWire(const v1::RopeConfig& message) {
  RopeConfig rope;
  rope.dims = message.dims();
  rope.base = message.base();
  rope.scaling = static_cast<RopeScaling>(std::min<uint32_t>(message.scaling(), UINT8_MAX));
  rope.factor = message.factor();
  rope.original_context = message.original_context();
  rope.beta_fast = message.beta_fast();
  rope.beta_slow = message.beta_slow();
  rope.magnitude = message.magnitude();
  return rope;
}

void RopeToWire(const RopeConfig& rope, v1::RopeConfig& message) {
  message.set_dims(rope.dims);
  message.set_base(rope.base);
  message.set_scaling(static_cast<uint32_t>(rope.scaling));
  message.set_factor(rope.factor);
  message.set_original_context(rope.original_context);
  message.set_beta_fast(rope.beta_fast);
  message.set_beta_slow(rope.beta_slow);
  message.set_magnitude(rope.magnitude);
}

}  // namespace

v1::ModelConfig ToWire(const ModelConfig& config) {
  v1::ModelConfig message;
  message.set_architecture(config.architecture);
  message.set_name(config.name);
  message.set_layers(config.layers);
  message.set_d_model(config.d_model);
  message.set_heads(config.heads);
  message.set_kv_heads(config.kv_heads);
  message.set_head_dim(config.head_dim);
  message.set_d_ffn(config.d_ffn);
  message.set_vocab(config.vocab);
  message.set_context(config.context);
  RopeToWire(config.rope, *message.mutable_rope());
  message.set_norm_epsilon(config.norm_epsilon);
  message.set_experts(config.experts);
  message.set_experts_used(config.experts_used);
  message.set_attention_scale(config.attention_scale);
  message.set_attention_soft_cap(config.attention_soft_cap);
  message.set_final_soft_cap(config.final_soft_cap);
  message.set_window(config.window);
  message.set_window_period(config.window_period);
  return message;
}

absl::StatusOr<ModelConfig> FromWire(const v1::ModelConfig& message) {
  RETURN_IF_ERROR(CheckText("model.architecture", message.architecture(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckText("model.name", message.name(), 1024));
  ModelConfig config;
  config.architecture = message.architecture();
  config.name = message.name();
  config.layers = message.layers();
  config.d_model = message.d_model();
  config.heads = message.heads();
  config.kv_heads = message.kv_heads();
  config.head_dim = message.head_dim();
  config.d_ffn = message.d_ffn();
  config.vocab = message.vocab();
  config.context = message.context();
  config.rope = RopeFromWire(message.rope());
  config.norm_epsilon = message.norm_epsilon();
  config.experts = message.experts();
  config.experts_used = message.experts_used();
  config.attention_scale = message.attention_scale();
  config.attention_soft_cap = message.attention_soft_cap();
  config.final_soft_cap = message.final_soft_cap();
  config.window = message.window();
  config.window_period = message.window_period();
  RETURN_IF_ERROR(ValidateModelConfig(config));
  return config;
}

}  // namespace efedllm
