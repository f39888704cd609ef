#include "wire/frame.h"

#include <xxhash.h>

#include <bit>
#include <climits>
#include <cstring>
#include <memory>
#include <utility>

#include "common/check.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

static_assert(std::endian::native == std::endian::little, "checksums are written as they lie");

constexpr uint8_t kChecksumTag = 15 << 3 | 5;  // field 15, 32 bits

uint32_t Checksum(absl::Span<const uint8_t> head, absl::Span<const uint8_t> payload) {
  if (payload.empty()) return static_cast<uint32_t>(XXH3_64bits(head.data(), head.size()));
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                              XXH3_freeState);
  CHECK(state != nullptr && XXH3_64bits_reset(state.get()) == XXH_OK);
  XXH3_64bits_update(state.get(), head.data(), head.size());
  XXH3_64bits_update(state.get(), payload.data(), payload.size());
  return static_cast<uint32_t>(XXH3_64bits_digest(state.get()));
}

absl::Span<const uint8_t> BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// A slice that owns the string: its bytes are not copied.
grpc::Slice TakeString(std::string text) {
  auto* owner = new std::string(std::move(text));
  return grpc::Slice(
      owner->data(), owner->size(), [](void* p) { delete static_cast<std::string*>(p); }, owner);
}

}  // namespace

grpc::ByteBuffer SealFrame(std::string head, std::string payload) {
  const uint32_t checksum = Checksum(BytesOf(head), BytesOf(payload));
  uint8_t field[kChecksumBytes] = {kChecksumTag};
  std::memcpy(field + 1, &checksum, sizeof(checksum));
  if (payload.empty()) {
    head.append(reinterpret_cast<const char*>(field), sizeof(field));
    const grpc::Slice only = TakeString(std::move(head));
    return grpc::ByteBuffer(&only, 1);
  }
  const grpc::Slice slices[] = {TakeString(std::move(head)), TakeString(std::move(payload)),
                                grpc::Slice(field, sizeof(field))};
  return grpc::ByteBuffer(slices, 3);
}

absl::StatusOr<absl::Span<const uint8_t>> OpenFrame(const grpc::ByteBuffer& frame,
                                                    grpc::Slice& memory) {
  const absl::Status damaged = absl::DataLossError("frame damaged on its way");
  if (!frame.Valid()) return damaged;
  if (!frame.TrySingleSlice(&memory).ok() && !frame.DumpToSingleSlice(&memory).ok()) {
    return damaged;
  }
  if (memory.size() < kChecksumBytes) return damaged;
  const absl::Span<const uint8_t> bytes(memory.begin(), memory.size() - kChecksumBytes);
  uint32_t checksum = 0;
  std::memcpy(&checksum, bytes.end() + 1, sizeof(checksum));
  if (*bytes.end() != kChecksumTag || checksum != Checksum(bytes, {})) return damaged;
  return bytes;
}

grpc::ByteBuffer SealMessage(const google::protobuf::MessageLite& message) {
  return SealFrame(message.SerializeAsString());
}

absl::Status OpenMessage(const grpc::ByteBuffer& frame, google::protobuf::MessageLite& message) {
  grpc::Slice memory;
  ASSIGN_OR_RETURN(const absl::Span<const uint8_t> bytes, OpenFrame(frame, memory));
  if (bytes.size() <= INT_MAX &&
      message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError("the message is not readable");
}

}  // namespace efedllm
