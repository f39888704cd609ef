// A peer's clock and latency, from pings: the quickest of the last ones tell best.
#ifndef EFEDLLM_CLUSTER_PING_FILTER_H_
#define EFEDLLM_CLUSTER_PING_FILTER_H_

#include <algorithm>
#include <cstddef>
#include <deque>

#include "absl/time/time.h"

namespace efedllm {

// Not thread-safe.
class PingFilter {
 public:
  // A ping sent and answered by our clock, and what the peer's clock said in between. A clock that
  // was set back meanwhile tells nothing.
  void Add(absl::Time sent, absl::Time received, absl::Time peer_time) {
    if (received < sent) return;
    const absl::Duration rtt = received - sent;
    if (pings_.size() == kWindow) pings_.pop_front();
    pings_.push_back({rtt, peer_time - (sent + rtt / 2)});
  }

  bool empty() const { return pings_.empty(); }
  // Of the quickest. Not empty. The offset, peer's clock minus ours, is wrong by half the RTT at
  // most.
  absl::Duration rtt() const { return Best().rtt; }
  absl::Duration offset() const { return Best().offset; }

 private:
  struct Ping {
    absl::Duration rtt, offset;
  };
  // Long enough that a quiet moment is among them, short enough for clocks that drift apart.
  static constexpr size_t kWindow = 16;

  const Ping& Best() const {
    return *std::min_element(pings_.begin(), pings_.end(),
                             [](const Ping& a, const Ping& b) { return a.rtt < b.rtt; });
  }

  std::deque<Ping> pings_;
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_PING_FILTER_H_
