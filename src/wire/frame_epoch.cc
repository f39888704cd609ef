#include "wire/frame_epoch.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <vector>

#include "efedllm/stage.pb.h"

namespace efedllm {

std::optional<Epoch> FrameEpoch(const grpc::ByteBuffer& frame) {
  using google::protobuf::internal::WireFormatLite;
  constexpr uint32_t kTag = static_cast<uint32_t>(v1::StepFrame::kEpochFieldNumber) << 3 |
                            WireFormatLite::WIRETYPE_VARINT;
  constexpr size_t kMostBytes = 11;  // the tag, and a varint of 64 bits
  std::vector<grpc::Slice> slices;
  if (!frame.Valid() || !frame.Dump(&slices).ok()) return std::nullopt;
  uint8_t start[kMostBytes];
  size_t have = 0;
  for (const grpc::Slice& slice : slices) {
    const size_t more = std::min(slice.size(), kMostBytes - have);
    std::copy_n(slice.begin(), more, start + have);
    have += more;
  }
  google::protobuf::io::CodedInputStream in(start, static_cast<int>(have));
  Epoch epoch;
  if (in.ReadTag() != kTag || !in.ReadVarint64(&epoch.v)) return std::nullopt;
  return epoch;
}

}  // namespace efedllm
