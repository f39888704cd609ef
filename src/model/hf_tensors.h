// The weights of a Hugging Face folder as a GGUF's tensors.
#ifndef EFEDLLM_MODEL_HF_TENSORS_H_
#define EFEDLLM_MODEL_HF_TENSORS_H_

#include <vector>

#include "absl/status/status.h"
#include "model/hf_config.h"
#include "model/model_file.h"
#include "model/safetensors.h"

namespace efedllm {

// Adds the tensors under their GGUF names, and equal to the GGUF's byte by byte: norms have their 1
// added, rows of Q and K are in GGUF's order. Matrices stay where they are (as pieces, where the
// order differs); vectors and the routers of experts are converted to F32. Unimplemented: a number
// format that we can't compute with, or a tensor that this kind of model doesn't have;
// InvalidArgument: experts that are missing or differ.
absl::Status AddHfTensors(const HfModel& facts, const std::vector<SafetensorsTensor>& tensors,
                          ModelContents& model);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_HF_TENSORS_H_
