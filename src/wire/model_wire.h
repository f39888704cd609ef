// A model's config <-> domain type, every field checked.
#ifndef EFEDLLM_WIRE_MODEL_WIRE_H_
#define EFEDLLM_WIRE_MODEL_WIRE_H_

#include "absl/status/statusor.h"
#include "cluster/model_config.h"
#include "efedllm/cluster.pb.h"

namespace efedllm {

v1::ModelConfig ToWire(const ModelConfig& config);

// InvalidArgument names the field.
absl::StatusOr<ModelConfig> FromWire(const v1::ModelConfig& message);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_MODEL_WIRE_H_
