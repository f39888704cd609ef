// RoPE's scaling in config.json ("rope_scaling", or "rope_parameters") in GGUF's words.
#ifndef EFEDLLM_MODEL_HF_ROPE_H_
#define EFEDLLM_MODEL_HF_ROPE_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/status.h"
#include "model/hf_config.h"
#include "model/model_file.h"

namespace efedllm {

// Sets the keys below <architecture>.rope, and the factors of Llama 3 and Phi 3 as tensors.
absl::Status WriteHfRope(const nlohmann::json& config, const HfClass& kind, uint64_t head_dim,
                         ModelContents& model);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_HF_ROPE_H_
