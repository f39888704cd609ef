// libs: efedllm_wire
// Any bytes as a frame of KV, with and without a checksum behind them: a Status or a frame within
// its bounds, which is written and read back the same.
#include <cstddef>
#include <cstdint>
#include <string>

#include "common/check.h"
#include "wire/frame.h"
#include "wire/kv_wire.h"

namespace {

constexpr uint64_t kBytesPerToken = 4;
constexpr uint32_t kMaxPosition = 1000;

void Check(const grpc::ByteBuffer& bytes) {
  efedllm::KvExtentFrame frame, copy;
  grpc::Slice memory, again;
  absl::string_view kv, kv_again;
  if (!KvFromWire(bytes, kBytesPerToken, kMaxPosition, frame, memory, kv).ok()) return;
  CHECK(frame.tokens > 0 && frame.first_position + frame.tokens <= kMaxPosition);
  CHECK(kv.size() == frame.tokens * kBytesPerToken);
  CHECK(KvFromWire(KvToWire(frame, std::string(kv)), kBytesPerToken, kMaxPosition, copy, again,
                   kv_again)
            .ok());
  CHECK(copy == frame && kv_again == kv);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const grpc::Slice slice(data, size);
  Check(grpc::ByteBuffer(&slice, 1));
  Check(efedllm::SealFrame(std::string(reinterpret_cast<const char*>(data), size)));
  return 0;
}
