#include "faultsim/event_loop.h"

#include <algorithm>
#include <utility>

namespace efedllm::faultsim {

void EventLoop::At(VirtualTime when, Process* process, std::function<void()> run) {
  events_.push_back({std::max(when, now_), ++last_order_, process,
                     process == nullptr ? 0 : process->life, std::move(run)});
  std::push_heap(events_.begin(), events_.end(), Later());
}

void EventLoop::Clear() {
  // What goes with an event may leave another.
  while (!events_.empty()) std::exchange(events_, {}).clear();
}

bool EventLoop::Step(VirtualTime until) {
  while (!events_.empty() && events_.front().when <= until) {
    std::pop_heap(events_.begin(), events_.end(), Later());
    Event event = std::move(events_.back());
    events_.pop_back();
    const Process* process = event.process;
    if (process != nullptr) {
      if (!process->up || process->life != event.life) continue;
      const VirtualTime able = std::max(process->stopped_until, process->busy_until);
      if (able > event.when) {
        event.when = able;
        events_.push_back(std::move(event));
        std::push_heap(events_.begin(), events_.end(), Later());
        continue;
      }
    }
    now_ = event.when;
    ++steps_;
    event.run();
    return true;
  }
  now_ = std::max(now_, until);
  return false;
}

}  // namespace efedllm::faultsim
