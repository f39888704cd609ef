// How long a request would wait: from who is here, and how fast sequences finished lately.
#ifndef EFEDLLM_COORDINATOR_OPENAI_LOAD_H_
#define EFEDLLM_COORDINATOR_OPENAI_LOAD_H_

#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/scheduler.h"

namespace efedllm {

// Whose a sequence is, as far as its turn depends on it (fair_queue.h).
struct Turn {
  std::string owner;
  int priority = 0;
};

// Thread-safe.
class LoadMeter {
 public:
  // Sequences of a request, from Submit until they are over.
  class Share {
   public:
    Share(LoadMeter& meter, Turn turn, size_t sequences);
    ~Share();
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;

    // One of them finished, while others waited or not.
    void Finish(absl::Time now, const SchedulerStats& stats);

   private:
    LoadMeter& meter_;
    const Turn turn_;
    size_t sequences_;
  };

  // Until the first token's computation begins. nullopt: not known, since too little has finished
  // while others waited.
  std::optional<absl::Duration> WaitOf(const Turn& turn, absl::Time now,
                                       const SchedulerStats& stats) const ABSL_LOCKS_EXCLUDED(mu_);
  // When a client whom the full queue turned away should come again: half of it is done then.
  absl::Duration RetryFullQueue(absl::Time now, const SchedulerStats& stats) const
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  static constexpr size_t kFinishes = 64;  // that the rate is taken of
  static constexpr size_t kEnough = 4;

  void Change(const Turn& turn, size_t more, size_t less) ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<double> PerSecond(absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  mutable absl::Mutex mu_;
  std::map<int, std::map<std::string, size_t>> here_ ABSL_GUARDED_BY(mu_);  // by priority, owner
  std::deque<absl::Time> finishes_ ABSL_GUARDED_BY(mu_);  // while others waited without a break
};

// When a client should come again while nothing serves. state: the cluster's, in the words of
// ClusterStatus; empty: not known. outage: how long it lasts. A lost worker is replaced within
// seconds, where there is another; weights that load, and workers that must join, take longer.
absl::Duration RetryOutage(absl::string_view state, absl::Duration outage);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_OPENAI_LOAD_H_
