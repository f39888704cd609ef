#include "coordinator/hop_inbox.h"

#include <optional>
#include <utility>

#include "absl/time/time.h"

namespace efedllm {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(50);

}  // namespace

HopInbox::HopInbox(HopReceiver& receiver) : receiver_(receiver) {
  thread_ = std::thread([this] { Loop(); });
}

HopInbox::~HopInbox() { Stop(); }

void HopInbox::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void HopInbox::Serve(std::weak_ptr<HopSink> sink) {
  absl::MutexLock lock(&mu_);
  sink_ = std::move(sink);
}

void HopInbox::Loop() {
  while (true) {
    const std::optional<HopFrame> frame = receiver_.Next(kTick);
    std::shared_ptr<HopSink> sink;
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
      sink = sink_.lock();
    }
    if (sink == nullptr) continue;
    if (frame) sink->OnFrame(*frame);
    sink->OnTick();
  }
}

}  // namespace efedllm
