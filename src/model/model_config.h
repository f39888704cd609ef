// ModelConfig (cluster/model_config.h) from a GGUF: everything behind it may trust it.
#ifndef EFEDLLM_MODEL_MODEL_CONFIG_H_
#define EFEDLLM_MODEL_MODEL_CONFIG_H_

#include "absl/status/statusor.h"
#include "cluster/model_config.h"

namespace efedllm {

class ModelFile;

// Unimplemented: an architecture or feature (experts, RoPE scaling kind ...) that this build can't
// run, by name. InvalidArgument: missing or absurd metadata.
absl::StatusOr<ModelConfig> ModelConfigFromGguf(const ModelFile& file);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_MODEL_CONFIG_H_
