#include "coordinator/hop_relay.h"

#include <optional>
#include <utility>

#include "absl/time/clock.h"

namespace efedllm {
namespace {

// A peer that takes nothing for this long is gone.
constexpr absl::Duration kSendTimeout = absl::Seconds(30);
constexpr absl::Duration kSendSlice = absl::Milliseconds(100);

}  // namespace

HopRelay::HopRelay(std::unique_ptr<FrameSender> to, size_t most_frames)
    : to_(std::move(to)), waiting_(most_frames) {
  thread_ = std::thread([this] { Loop(); });
}

HopRelay::~HopRelay() {
  stopping_ = true;
  waiting_.Close();
  thread_.join();
}

absl::Status HopRelay::Forward(grpc::ByteBuffer frame) {
  if (waiting_.TryPush(std::move(frame))) return absl::OkStatus();
  return absl::ResourceExhaustedError("it sent more frames than there are steps on their way");
}

absl::Status HopRelay::status() const {
  absl::MutexLock lock(&mu_);
  return status_;
}

absl::Status HopRelay::Send(const grpc::ByteBuffer& frame) {
  const absl::Time deadline = absl::Now() + kSendTimeout;
  while (true) {
    const absl::Status sent = to_->Send(frame, kSendSlice);
    if (!absl::IsDeadlineExceeded(sent) || absl::Now() > deadline || stopping_) return sent;
  }
}

void HopRelay::Loop() {
  while (!stopping_) {
    const std::optional<grpc::ByteBuffer> frame = waiting_.Pop(absl::InfiniteDuration());
    if (!frame || stopping_) return;
    absl::Status sent = Send(*frame);
    if (sent.ok()) continue;
    absl::MutexLock lock(&mu_);
    status_ = std::move(sent);
    return;
  }
}

}  // namespace efedllm
