#include "wire/kv_wire.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/status_macros.h"
#include "efedllm/stage.pb.h"
#include "wire/frame.h"

namespace efedllm {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;

constexpr uint64_t kFrameBytes = uint64_t{4} << 20;
constexpr uint32_t kPagePositions = 64;  // of the KV cache
// Tags and numbers of the other fields: at most 11 bytes each, and the checksum.
constexpr size_t kOtherFieldsBytes = 5 * 11 + kChecksumBytes;

constexpr uint32_t kKvTag = v1::KvFrame::kKvFieldNumber << 3 |
                            static_cast<uint32_t>(WireFormatLite::WIRETYPE_LENGTH_DELIMITED);

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed KV: ", what));
}

// The numbers of a frame and, at its end, where its KV lies.
absl::Status ReadFields(absl::Span<const uint8_t> bytes, v1::KvFrame& numbers,
                        absl::string_view& kv) {
  CodedInputStream in(bytes.data(), static_cast<int>(bytes.size()));
  while (const uint32_t tag = in.ReadTag()) {
    const auto tag_end = static_cast<size_t>(in.CurrentPosition());
    if (tag == kKvTag) {
      uint32_t size = 0;
      if (!in.ReadVarint32(&size)) return Malformed("a length is cut off");
      const auto at = static_cast<size_t>(in.CurrentPosition());
      if (size != bytes.size() - at) return Malformed("it does not end with its values");
      kv = absl::string_view(reinterpret_cast<const char*>(bytes.data() + at), size);
      return absl::OkStatus();
    }
    uint64_t number = 0;
    if ((tag & 7) != WireFormatLite::WIRETYPE_VARINT || !in.ReadVarint64(&number)) {
      return Malformed(absl::StrCat("field ", tag >> 3, " at byte ", tag_end, " is not readable"));
    }
    switch (tag >> 3) {
      case v1::KvFrame::kNextEpochFieldNumber:
        numbers.set_next_epoch(number);
        break;
      case v1::KvFrame::kSequenceFieldNumber:
        numbers.set_sequence(number);
        break;
      case v1::KvFrame::kFirstPositionFieldNumber:
        numbers.set_first_position(static_cast<uint32_t>(std::min<uint64_t>(number, UINT32_MAX)));
        break;
      case v1::KvFrame::kTokensFieldNumber:
        numbers.set_tokens(static_cast<uint32_t>(std::min<uint64_t>(number, UINT32_MAX)));
        break;
      default:
        return Malformed(absl::StrCat("field ", tag >> 3, " is unknown"));
    }
  }
  return Malformed("it has no values");
}

}  // namespace

uint32_t KvFrameTokens(uint64_t bytes_per_token) {
  const uint64_t fit = std::clamp<uint64_t>(kFrameBytes / std::max<uint64_t>(bytes_per_token, 1), 1,
                                            kFrameBytes / kPagePositions);
  const uint64_t pages = fit / kPagePositions;
  return static_cast<uint32_t>(pages > 0 ? pages * kPagePositions : fit);
}

size_t MaxKvFrameBytes(uint64_t bytes_per_token) {
  return kOtherFieldsBytes + KvFrameTokens(bytes_per_token) * bytes_per_token;
}

grpc::ByteBuffer KvToWire(const KvExtentFrame& frame, std::string kv) {
  v1::KvFrame message;
  message.set_next_epoch(frame.next_epoch.v);
  message.set_sequence(frame.sequence.v);
  message.set_first_position(frame.first_position);
  message.set_tokens(frame.tokens);
  std::string head = message.SerializeAsString();
  uint8_t prefix[16];
  uint8_t* end = CodedOutputStream::WriteVarint32ToArray(kKvTag, prefix);
  end = CodedOutputStream::WriteVarint64ToArray(kv.size(), end);
  head.append(prefix, end);
  return SealFrame(std::move(head), std::move(kv));
}

absl::Status KvFromWire(const grpc::ByteBuffer& bytes, uint64_t bytes_per_token,
                        uint32_t max_position, KvExtentFrame& frame, grpc::Slice& memory,
                        absl::string_view& kv) {
  if (bytes.Length() > MaxKvFrameBytes(bytes_per_token) || bytes.Length() > INT32_MAX) {
    return Malformed(absl::StrCat("it has ", bytes.Length(), " bytes; at most ",
                                  MaxKvFrameBytes(bytes_per_token), " can be right"));
  }
  ASSIGN_OR_RETURN(const absl::Span<const uint8_t> body, OpenFrame(bytes, memory));
  v1::KvFrame numbers;
  RETURN_IF_ERROR(ReadFields(body, numbers, kv));
  if (numbers.tokens() == 0 || numbers.tokens() > KvFrameTokens(bytes_per_token) ||
      uint64_t{numbers.first_position()} + numbers.tokens() > max_position) {
    return Malformed(absl::StrCat(numbers.tokens(), " positions from ", numbers.first_position(),
                                  " on; the context has ", max_position));
  }
  if (kv.size() != numbers.tokens() * bytes_per_token) {
    return Malformed(absl::StrCat(kv.size(), " bytes for ", numbers.tokens(), " positions of ",
                                  bytes_per_token, " bytes"));
  }
  frame = {Epoch{numbers.next_epoch()}, SequenceId{numbers.sequence()}, numbers.first_position(),
           numbers.tokens()};
  return absl::OkStatus();
}

}  // namespace efedllm
