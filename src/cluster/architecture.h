// The architectures that we run, as a table of facts: all of them are one decoder (RMSNorm, rotary
// positions, grouped-query attention, a gated feed-forward network or experts), and differ in what
// stands here.
#ifndef EFEDLLM_CLUSTER_ARCHITECTURE_H_
#define EFEDLLM_CLUSTER_ARCHITECTURE_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace efedllm {

enum class Activation { kSilu, kGelu };  // of the gate; GELU by its tanh formula
enum class Experts { kNone, kOptional, kAlways };

struct Architecture {
  absl::string_view name;  // general.architecture
  absl::string_view examples;
  Activation activation = Activation::kSilu;
  // RoPE turns element i of a head with i + dims/2 (NeoX), not with its neighbour.
  bool rope_halves = false;
  bool qk_norm = false;           // RMSNorm of each head of Q and K, before RoPE
  bool post_norms = false;        // RMSNorm of what attention and feed-forward add
  bool fused = false;             // Q, K and V in one tensor; gate and up in one
  bool scaled_embedding = false;  // by sqrt(d_model)
  Experts experts = Experts::kNone;

  // Of the attention window: every period-th layer sees all, and the others as far as the window
  // reaches; 0: the window holds for all layers.
  uint32_t window_period = 0;
  uint32_t default_window = 0;  // where the file is silent; 0: none
  float local_rope_base = 0;    // of layers with a window, which aren't scaled; 0: as the others
  float default_attention_soft_cap = 0;  // 0: none
  float default_final_soft_cap = 0;
  // The size of the family that scales scores by the width of all heads and not of one; 0: none.
  uint32_t wide_scale_layers = 0;
};

absl::Span<const Architecture> Architectures();
// nullptr: none that we run.
const Architecture* FindArchitecture(absl::string_view name);
// "llama, qwen2, ...", for messages.
std::string ArchitectureNames();

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_ARCHITECTURE_H_
