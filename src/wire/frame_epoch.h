// The epoch that a hop's frame is of, without reading the rest.
#ifndef EFEDLLM_WIRE_FRAME_EPOCH_H_
#define EFEDLLM_WIRE_FRAME_EPOCH_H_

#include <grpcpp/support/byte_buffer.h>

#include <optional>

#include "common/ids.h"

namespace efedllm {

// nullopt: it does not begin as step_wire.h writes frames. Nothing else of it is checked.
std::optional<Epoch> FrameEpoch(const grpc::ByteBuffer& frame);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_FRAME_EPOCH_H_
