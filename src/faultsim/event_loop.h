// Virtual time: events in the order of their time, one after the other, on one thread.
#ifndef EFEDLLM_FAULTSIM_EVENT_LOOP_H_
#define EFEDLLM_FAULTSIM_EVENT_LOOP_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/clock.h"
#include "common/ids.h"

namespace efedllm::faultsim {

// Since the world began.
using VirtualTime = absl::Duration;

// A process of the simulated world. Its events wait while it is stopped or busy, and are lost with
// the life that they were for.
struct Process {
  std::string name;
  NodeId node;
  bool up = false;
  uint64_t life = 0;                                 // counts up with each start
  VirtualTime stopped_until = absl::ZeroDuration();  // SIGSTOP
  VirtualTime busy_until = absl::ZeroDuration();     // it waits for its disk
  double slowness = 1;                               // what it computes takes so many times as long
  absl::Duration clock_offset;                       // of its wall clock
};

class EventLoop {
 public:
  VirtualTime now() const { return now_; }
  uint64_t steps() const { return steps_; }
  size_t waiting() const { return events_.size(); }

  // process: whose event it is; null: the world's own.
  void At(VirtualTime when, Process* process, std::function<void()> run);
  void After(absl::Duration delay, Process* process, std::function<void()> run) {
    At(now_ + delay, process, std::move(run));
  }

  // Forgets all events: what they refer to is about to go.
  void Clear();
  // Runs the next event. False: there is none until then.
  bool Step(VirtualTime until);

 private:
  struct Event {
    VirtualTime when;
    uint64_t order = 0;
    Process* process = nullptr;
    uint64_t life = 0;
    std::function<void()> run;
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return a.when != b.when ? a.when > b.when : a.order > b.order;
    }
  };

  std::vector<Event> events_;  // a heap
  VirtualTime now_ = absl::ZeroDuration();
  uint64_t last_order_ = 0;
  uint64_t steps_ = 0;
};

// The clocks of a process. The steady one began with its life, at what its wall clock showed then.
class VirtualClock final : public Clock {
 public:
  VirtualClock(const EventLoop& loop, const Process& process)
      : loop_(loop), process_(process), begun_(kBegin + process.clock_offset) {}
  absl::Time Now() const override { return begun_ + loop_.now(); }
  absl::Time WallNow() const override { return kBegin + process_.clock_offset + loop_.now(); }

 private:
  const absl::Time kBegin = absl::FromUnixSeconds(1'800'000'000);

  const EventLoop& loop_;
  const Process& process_;
  const absl::Time begun_;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_EVENT_LOOP_H_
