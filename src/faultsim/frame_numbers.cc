#include "faultsim/frame_numbers.h"

#include <google/protobuf/io/coded_stream.h>

#include <algorithm>
#include <utility>

#include "efedllm/stage.pb.h"
#include "faultsim/sim_hop.h"
#include "wire/frame.h"

namespace efedllm::faultsim {
namespace {

using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;

constexpr uint32_t kEpochTag = v1::StepFrame::kEpochFieldNumber << 3;
constexpr uint32_t kStepTag = v1::StepFrame::kStepFieldNumber << 3;

}  // namespace

std::optional<FrameNumbers> NumbersOf(const std::string& frame) {
  constexpr size_t kMostBytes = 22;  // two tags, two varints of 64 bits
  CodedInputStream in(reinterpret_cast<const uint8_t*>(frame.data()),
                      static_cast<int>(std::min(frame.size(), kMostBytes)));
  FrameNumbers numbers;
  const bool read = in.ReadTag() == kEpochTag && in.ReadVarint64(&numbers.epoch.v) &&
                    in.ReadTag() == kStepTag && in.ReadVarint64(&numbers.step.v);
  return read ? std::optional(numbers) : std::nullopt;
}

std::string WithEpoch(const std::string& frame, Epoch epoch) {
  const auto numbers = NumbersOf(frame);
  if (!numbers) return frame;
  const auto size = [](Epoch of) { return 1 + CodedOutputStream::VarintSize64(of.v); };
  std::string changed(size(epoch), '\0');
  auto* out = reinterpret_cast<uint8_t*>(changed.data());
  CodedOutputStream::WriteVarint64ToArray(epoch.v,
                                          CodedOutputStream::WriteTagToArray(kEpochTag, out));
  return WithRightChecksum(changed + frame.substr(size(numbers->epoch)));
}

std::string WithRightChecksum(std::string frame) {
  if (frame.size() < kChecksumBytes) return frame;
  frame.resize(frame.size() - kChecksumBytes);
  return BytesOf(SealFrame(std::move(frame)));
}

}  // namespace efedllm::faultsim
