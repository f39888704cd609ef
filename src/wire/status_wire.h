// absl::Status <-> grpc::Status.
#ifndef EFEDLLM_WIRE_STATUS_WIRE_H_
#define EFEDLLM_WIRE_STATUS_WIRE_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace efedllm {

grpc::Status ToGrpc(const absl::Status& status);
// The message is made printable and bounded: it came from a peer.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_STATUS_WIRE_H_
