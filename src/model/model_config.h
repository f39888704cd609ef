// ModelConfig (cluster/model_config.h) from a model file: everything behind it may trust it.
#ifndef EFEDLLM_MODEL_MODEL_CONFIG_H_
#define EFEDLLM_MODEL_MODEL_CONFIG_H_

#include "absl/status/statusor.h"
#include "cluster/model_config.h"

namespace efedllm {

class ModelFile;

// Unimplemented: an architecture or feature (kind of RoPE scaling ...) that this build can't run,
// by name. InvalidArgument: missing or absurd metadata. Messages begin with the file's path.
absl::StatusOr<ModelConfig> ModelConfigFromFile(const ModelFile& file);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_MODEL_CONFIG_H_
