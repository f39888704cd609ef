// What the frames between stages have in common: bytes with a checksum behind them. For this
// folder, and for tests that forge frames.
#ifndef EFEDLLM_WIRE_FRAME_H_
#define EFEDLLM_WIRE_FRAME_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace efedllm {

// On the wire the last field of every frame's message: `fixed32 checksum = 15`, the low half of the
// XXH3-64 of all the bytes before it.
inline constexpr size_t kChecksumBytes = 5;

// The frame that consists of head, payload and their checksum. Neither is copied.
grpc::ByteBuffer SealFrame(std::string head, std::string payload = {});

// The bytes of a frame without its checksum, which is right. They lie in memory: the transport's
// own if the frame came in one piece, else a copy. DataLoss: the checksum is wrong or missing.
absl::StatusOr<absl::Span<const uint8_t>> OpenFrame(const grpc::ByteBuffer& frame,
                                                    grpc::Slice& memory);

// The same of whole messages. OpenMessage: DataLoss as OpenFrame; InvalidArgument: these bytes are
// no such message.
grpc::ByteBuffer SealMessage(const google::protobuf::MessageLite& message);
absl::Status OpenMessage(const grpc::ByteBuffer& frame, google::protobuf::MessageLite& message);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_FRAME_H_
