// What a model's keys and values are kept in, where nobody says.
#ifndef EFEDLLM_CLUSTER_KV_RULE_H_
#define EFEDLLM_CLUSTER_KV_RULE_H_

#include "cluster/model_config.h"
#include "tensor/kv_type.h"

namespace efedllm {

// f32 where that takes at most 16 KiB a token over all layers: such small models lose nothing by
// it. f16 otherwise, which is what others in this field have.
KvType AutoKvType(const ModelConfig& config);

// InvalidArgument: heads of this model can't be cut into the type's blocks.
absl::Status CheckKvType(const ModelConfig& config, KvType type);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_KV_RULE_H_
