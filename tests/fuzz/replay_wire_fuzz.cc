// libs: efedllm_wire
// Questions of a coordinator and answers of a worker: refused, or the same when they are written
// again.
#include <cstdint>
#include <string>

#include "common/check.h"
#include "wire/frame.h"
#include "wire/replay_wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace efedllm;
  if (size == 0) return 0;
  const grpc::ByteBuffer bytes =
      SealFrame(std::string(reinterpret_cast<const char*>(data) + 1, size - 1));
  if (data[0] % 2 == 0) {
    const absl::StatusOr<ReplayRequest> request = ReplayRequestFromWire(bytes);
    if (!request.ok()) return 0;
    CHECK(*ReplayRequestFromWire(ToWire(*request)) == *request);
    if (const auto* question = std::get_if<ReplayQuestion>(&request->what)) {
      CHECK(question->first_wanted < question->positions);
      CHECK(question->computed().size() <= question->layers.size());
    }
  } else {
    const absl::StatusOr<ReplayReply> reply = ReplayReplyFromWire(bytes, 4, 64);
    if (!reply.ok()) return 0;
    CHECK(reply->rows.size() <= 64 && reply->after_layer.size() <= 4);
    CHECK(*ReplayReplyFromWire(ToWire(*reply), 4, 64) == *reply);
  }
  return 0;
}
