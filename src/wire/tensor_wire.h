// A tensor's description <-> domain type, every field checked.
#ifndef EFEDLLM_WIRE_TENSOR_WIRE_H_
#define EFEDLLM_WIRE_TENSOR_WIRE_H_

#include "absl/status/statusor.h"
#include "cluster/tensor_spec.h"
#include "efedllm/cluster.pb.h"

namespace efedllm {

// With all chunk digests.
v1::TensorSpec ToWire(const TensorSpec& spec);

// InvalidArgument names the field.
absl::StatusOr<TensorSpec> FromWire(const v1::TensorSpec& message);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_TENSOR_WIRE_H_
