// KV on its way to the node that goes on with it. Every size and range of a frame is checked here;
// the values are not: what the receiver computes from them is what shows.
#ifndef EFEDLLM_WIRE_KV_WIRE_H_
#define EFEDLLM_WIRE_KV_WIRE_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"

namespace efedllm {

// What a stage keeps of tokens positions of a sequence, from first_position on: StageExecutor's
// ExportKv and ImportKv.
struct KvExtentFrame {
  Epoch next_epoch;  // of the receiver's prepared stage
  SequenceId sequence;
  uint32_t first_position = 0;
  uint32_t tokens = 0;

  friend bool operator==(const KvExtentFrame&, const KvExtentFrame&) = default;
};

// bytes_per_token of a stage: model/stage_executor.h, StageKvBytesPerToken.

// Positions that a frame should have: whole pages of the KV cache if they fit in some MiB (they are
// copied fastest), else as many as do, and at least one.
uint32_t KvFrameTokens(uint64_t bytes_per_token);

// Largest frame of that many positions: what a stream must accept, and refuse beyond.
size_t MaxKvFrameBytes(uint64_t bytes_per_token);

// kv: frame.tokens * bytes_per_token bytes; not copied.
grpc::ByteBuffer KvToWire(const KvExtentFrame& frame, std::string kv);

// kv: exactly frame.tokens * bytes_per_token bytes, which lie in memory. DataLoss: the checksum is
// wrong or missing (verified before anything is read); InvalidArgument says what else is wrong: no
// tokens or more than KvFrameTokens, positions beyond max_position, another size.
absl::Status KvFromWire(const grpc::ByteBuffer& bytes, uint64_t bytes_per_token,
                        uint32_t max_position, KvExtentFrame& frame, grpc::Slice& memory,
                        absl::string_view& kv);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_KV_WIRE_H_
