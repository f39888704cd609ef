// When to ask whether the next node is still there. The transport takes frames long after a link
// was cut, and a stage hears nothing of what becomes of them.
#ifndef EFEDLLM_WORKER_EDGE_WATCH_H_
#define EFEDLLM_WORKER_EDGE_WATCH_H_

#include <algorithm>
#include <cstddef>
#include <optional>

#include "absl/time/time.h"

namespace efedllm {

// While frames flow, nothing is asked. After a pause the next node is asked once, and again only
// while a frame waits to be taken. One call at a time; now does not go back.
class EdgeWatch {
 public:
  void Received(absl::Time now) { last_ = now; }
  // The sending of a frame begins, and ends.
  void Sending(size_t bytes, absl::Time now) {
    Drain(now);
    backlog_bytes_ += static_cast<double>(bytes);
    sending_ = unasked_ = true;
    last_ = now;
  }
  void Sent(absl::Time now) {
    sending_ = false;
    last_ = now;
  }

  // nullopt: don't ask. Else how long to wait for the answer, which comes behind what was sent.
  std::optional<absl::Duration> Ask(absl::Time now) {
    const bool again = sending_ && now - asked_ >= kAskAgain;
    if ((!unasked_ && !again) || now - last_ < kPause) return std::nullopt;
    unasked_ = false;
    asked_ = now;
    Drain(now);
    return std::min(kPatience + absl::Seconds(backlog_bytes_ / kSlowBytesPerSecond), kMostPatience);
  }

 private:
  static constexpr absl::Duration kPause = absl::Milliseconds(250);
  static constexpr absl::Duration kAskAgain = absl::Milliseconds(1500);
  static constexpr absl::Duration kPatience = absl::Milliseconds(900);
  static constexpr absl::Duration kMostPatience = absl::Seconds(7);  // echoes are refused beyond 8
  static constexpr double kSlowBytesPerSecond = 1e6;                 // a link that is still of use

  // What was sent so far has got through since then, at the least.
  void Drain(absl::Time now) {
    const double passed = absl::ToDoubleSeconds(now - drained_) * kSlowBytesPerSecond;
    backlog_bytes_ = std::max(0.0, backlog_bytes_ - passed);
    drained_ = now;
  }

  absl::Time last_ = absl::InfinitePast();     // that a frame came or went
  absl::Time asked_ = absl::InfinitePast();    // that the next node was asked
  absl::Time drained_ = absl::InfinitePast();  // that backlog_bytes_ is of
  double backlog_bytes_ = 0;
  bool sending_ = false;
  bool unasked_ = false;  // something was sent since it was asked
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_EDGE_WATCH_H_
