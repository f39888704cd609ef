// What a model is: read from a model file's metadata (model/model_config.h) or from an assignment
// (wire), and proven sane.
#ifndef EFEDLLM_CLUSTER_MODEL_CONFIG_H_
#define EFEDLLM_CLUSTER_MODEL_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "cluster/architecture.h"

namespace efedllm {

// How positions beyond those of the training are reached.
enum class RopeScaling : uint8_t {
  kNone = 0,
  kLinear = 1,  // positions are divided by factor
  kYarn = 2,    // Peng et al., arXiv 2309.00071: slow pairs are divided, fast ones are not
  // Angles are divided pair by pair by a tensor of factors, of which the file has two sets (Phi 3).
  kLongFactors = 3,
  kShortFactors = 4,
};

struct RopeConfig {
  uint32_t dims = 0;  // even, <= head_dim; the first dims of a head turn
  float base = 10000;
  RopeScaling scaling = RopeScaling::kNone;
  float factor = 1;               // linear, YaRN: >= 1
  uint32_t original_context = 0;  // YaRN: what the model was first trained for
  float beta_fast = 32;           // YaRN: turns in the original context from which a pair is fast,
  float beta_slow = 1;            // and below which it is slow
  float magnitude = 1;            // cos and sin are multiplied by it

  friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

struct ModelConfig {
  std::string architecture;  // of Architectures()
  std::string name;          // general.name, printable
  uint32_t layers = 0;
  uint32_t d_model = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;      // divides heads
  uint32_t head_dim = 0;      // even
  uint32_t d_ffn = 0;         // of one expert, where there are experts
  uint32_t experts = 0;       // of a layer; 0: none, one feed-forward network for all tokens
  uint32_t experts_used = 0;  // by a token
  uint32_t vocab = 0;
  uint32_t context = 0;  // the longest sequence that it was trained for
  RopeConfig rope;
  float norm_epsilon = 1e-5f;
  float attention_scale = 0;     // what q · k is multiplied by
  float attention_soft_cap = 0;  // 0: none
  float final_soft_cap = 0;      // of the logits; 0: none
  uint32_t window = 0;  // of layers with one: they see fewer positions back than this; 0: no window
  uint32_t window_period = 0;  // see Architecture

  // The facts behind architecture, which must be known (ValidateModelConfig).
  const Architecture& traits() const;
  bool HasWindow(uint32_t layer) const;
  bool HasExperts() const { return experts > 0; }

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// Bounds that no real model exceeds and that keep every size computed from a config far from
// overflow. InvalidArgument names the field.
absl::Status ValidateModelConfig(const ModelConfig& config);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_MODEL_CONFIG_H_
