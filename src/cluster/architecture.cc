#include "cluster/architecture.h"

#include "absl/strings/str_join.h"

namespace efedllm {
namespace {

// Not constexpr: string_view's constructor from a literal isn't in every build of Abseil.
const Architecture kArchitectures[] = {
    {
        .name = "llama",
        .examples = "Llama 1 to 3, Mistral, Mixtral, SmolLM, TinyLlama",
        .experts = Experts::kOptional,
    },
    {
        .name = "qwen2",
        .examples = "Qwen 1.5 to 2.5",
        .rope_halves = true,
    },
    {
        .name = "qwen3",
        .examples = "Qwen 3",
        .rope_halves = true,
        .qk_norm = true,
    },
    {
        .name = "qwen3moe",
        .examples = "Qwen 3 with experts",
        .rope_halves = true,
        .qk_norm = true,
        .experts = Experts::kAlways,
    },
    {
        .name = "gemma2",
        .examples = "Gemma 2",
        .activation = Activation::kGelu,
        .rope_halves = true,
        .post_norms = true,
        .scaled_embedding = true,
        .window_period = 2,
        .default_window = 4096,
        .default_attention_soft_cap = 50,
        .default_final_soft_cap = 30,
        .wide_scale_layers = 46,
    },
    {
        .name = "gemma3",
        .examples = "Gemma 3, its text part",
        .activation = Activation::kGelu,
        .rope_halves = true,
        .qk_norm = true,
        .post_norms = true,
        .scaled_embedding = true,
        .window_period = 6,
        .local_rope_base = 10000,
        .wide_scale_layers = 62,
    },
    {
        .name = "phi3",
        .examples = "Phi 3 to 4",
        .rope_halves = true,
        .fused = true,
    },
};

}  // namespace

absl::Span<const Architecture> Architectures() { return kArchitectures; }

const Architecture* FindArchitecture(absl::string_view name) {
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) return &architecture;
  }
  return nullptr;
}

std::string ArchitectureNames() {
  return absl::StrJoin(Architectures(), ", ", [](std::string* out, const Architecture& a) {
    out->append(a.name.data(), a.name.size());
  });
}

}  // namespace efedllm
