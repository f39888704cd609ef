// Threads that live as long as the daemon and share out the chunks of one loop at a time.
#ifndef EFEDLLM_COMMON_THREAD_TEAM_H_
#define EFEDLLM_COMMON_THREAD_TEAM_H_

#include <cstddef>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace efedllm {

// Each thread takes the chunks of its share one by one, then those that others have left, so that a
// descheduled thread delays one chunk and not the loop. Helpers spin briefly for the next loop,
// then sleep. Which thread runs a chunk must not matter to the result.
class ThreadTeam {
 public:
  // threads: those that compute, the caller of ParallelFor included. 0 and 1: everything runs on
  // the caller.
  explicit ThreadTeam(int threads);
  ~ThreadTeam();

  int threads() const { return threads_; }

  // Runs body(i) for all i in [0, chunks), and returns when all are done. Callers on different
  // threads take turns; body must not call it again.
  void ParallelFor(size_t chunks, absl::FunctionRef<void(size_t chunk)> body)
      ABSL_LOCKS_EXCLUDED(turn_);

 private:
  struct Shared;

  const int threads_;
  absl::Mutex turn_;  // held while a loop runs
  std::unique_ptr<Shared> shared_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_THREAD_TEAM_H_
