// Time is injected, so that tests decide what it is.
//
// There are two clocks. Deadlines, leases, durations and traces go by a steady one, which nobody
// can set: it reads as the wall clock did when the process began, and as many seconds later as have
// passed since. The wall clock itself, which a person or NTP may set by hours, is for what means a
// date: certificates, the expiry of tokens, what people read.
//
// Waits are neither: absl::Mutex's of this Abseil (20220623) end by CLOCK_REALTIME, also where they
// take a duration, so that one that is under way when somebody sets the wall clock back lasts so
// much longer. Wait for at most kLongestWait at a time, and look at the steady clock again. Times
// of the steady clock mean nothing to who waits until a time of day (gRPC's deadlines,
// Mutex::AwaitWithDeadline): hand them durations, counted from the wall clock's now.
#ifndef EFEDLLM_COMMON_CLOCK_H_
#define EFEDLLM_COMMON_CLOCK_H_

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace efedllm {

// One wait on an absl::Mutex where a longer one would matter; see above.
inline constexpr absl::Duration kLongestWait = absl::Seconds(1);

// The steady clock of this process.
absl::Time SteadyNow();

// For people: "2026-03-01 17:05 UTC".
std::string FormatWallClock(absl::Time time);

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Never goes back, and never jumps.
  virtual absl::Time Now() const = 0;
  // What the calendar says; may do both.
  virtual absl::Time WallNow() const { return Now(); }
};

class SystemClock final : public Clock {
 public:
  absl::Time Now() const override { return SteadyNow(); }
  absl::Time WallNow() const override { return absl::Now(); }
};

// Stands still until told to move.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(absl::Time start = absl::UnixEpoch() + absl::Hours(24 * 365 * 50))
      : now_(start) {}

  absl::Time Now() const override {
    absl::MutexLock lock(&mu_);
    return now_;
  }
  absl::Time WallNow() const override {
    absl::MutexLock lock(&mu_);
    return now_ + skew_;
  }
  void Advance(absl::Duration by) {
    absl::MutexLock lock(&mu_);
    now_ += by;
  }
  // Somebody sets the wall clock, which is then so far ahead of Now().
  void SetSkew(absl::Duration skew) {
    absl::MutexLock lock(&mu_);
    skew_ = skew;
  }

 private:
  mutable absl::Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_);
  absl::Duration skew_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_CLOCK_H_
