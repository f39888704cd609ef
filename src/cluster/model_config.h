// What a model is: read from a GGUF's metadata (model/model_config.h) or from an assignment (wire),
// and proven sane.
#ifndef EFEDLLM_CLUSTER_MODEL_CONFIG_H_
#define EFEDLLM_CLUSTER_MODEL_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace efedllm {

// A decoder of the llama kind: RMSNorm, RoPE, grouped-query attention, SwiGLU.
struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // general.name, printable
  uint32_t layers = 0;
  uint32_t d_model = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;  // divides heads
  uint32_t head_dim = 0;  // even
  uint32_t d_ffn = 0;
  uint32_t vocab = 0;
  uint32_t context = 0;  // the longest sequence that it was trained for
  uint32_t rope_dims =
      0;  // even, <= head_dim; the first rope_dims of a head rotate, in neighbouring pairs
  float rope_base = 10000;
  float rope_scale = 1;  // linear scaling: positions are divided by it
  float norm_epsilon = 1e-5f;

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// Bounds that no real model exceeds and that keep every size computed from a config far from
// overflow. InvalidArgument names the field.
absl::Status ValidateModelConfig(const ModelConfig& config);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_MODEL_CONFIG_H_
