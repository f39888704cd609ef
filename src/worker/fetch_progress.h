// How far a stage's weights are: shared by the threads that fetch and those that tell.
#ifndef EFEDLLM_WORKER_FETCH_PROGRESS_H_
#define EFEDLLM_WORKER_FETCH_PROGRESS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace efedllm {

// GGUF bytes.
struct FetchBytes {
  uint64_t held = 0;  // on disk and verified
  uint64_t total = 0;
  uint64_t fetched = 0;  // of held, over the network for this assignment
};

// "42 %, 1.2 GiB of 2.9 GiB, 88.1 MiB/s".
std::string DescribeProgress(const FetchBytes& bytes, absl::Duration elapsed);

// Thread-safe. Tells `report` a few times a second, and the log every few seconds (or a bar on the
// terminal all the time).
class FetchProgress {
 public:
  FetchProgress(uint64_t total, bool draw_bar, std::function<void(const FetchBytes&)> report);

  void AddHeld(uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu_) { Add(bytes, false); }
  void AddFetched(uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu_) { Add(bytes, true); }
  // Clears the bar's line.
  void Finish() ABSL_LOCKS_EXCLUDED(mu_);

  FetchBytes bytes() const ABSL_LOCKS_EXCLUDED(mu_);
  absl::Duration elapsed() const;

 private:
  void Add(uint64_t bytes, bool fetched) ABSL_LOCKS_EXCLUDED(mu_);
  void DrawBar() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const bool draw_bar_;
  const std::function<void(const FetchBytes&)> report_;
  const absl::Time start_;

  mutable absl::Mutex mu_;
  FetchBytes bytes_ ABSL_GUARDED_BY(mu_);
  absl::Time last_report_ ABSL_GUARDED_BY(mu_);
  absl::Time last_log_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_FETCH_PROGRESS_H_
