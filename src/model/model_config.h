// ModelConfig (cluster/model_config.h) from a model file: everything behind it may trust it.
#ifndef EFEDLLM_MODEL_MODEL_CONFIG_H_
#define EFEDLLM_MODEL_MODEL_CONFIG_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster/model_config.h"

namespace efedllm {

class ModelFile;

// A key of ours, for files whose Q and K rows are not in the order that GGUF has for their
// architecture: whether RoPE turns halves.
inline constexpr absl::string_view kRopeHalvesKey = "efedllm.rope.halves";

// Unimplemented: an architecture or feature (kind of RoPE scaling ...) that this build can't run,
// by name. InvalidArgument: missing or absurd metadata.
absl::StatusOr<ModelConfig> ModelConfigFromFile(const ModelFile& file);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_MODEL_CONFIG_H_
