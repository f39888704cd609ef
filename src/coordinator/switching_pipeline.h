// The one pipeline that the scheduler sees: passes on to that of the present epoch.
#ifndef EFEDLLM_COORDINATOR_SWITCHING_PIPELINE_H_
#define EFEDLLM_COORDINATOR_SWITCHING_PIPELINE_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/pipeline.h"

namespace efedllm {

// Thread-safe, as Pipeline says. Results of an epoch that is over come before those of the next.
class SwitchingPipeline final : public Pipeline {
 public:
  // on_active: called with each new count of active sequences; must be quick.
  explicit SwitchingPipeline(std::function<void(size_t)> on_active)
      : on_active_(std::move(on_active)) {}

  // The next epoch begins.
  void Serve(std::shared_ptr<Pipeline> pipeline) ABSL_LOCKS_EXCLUDED(mu_);
  // No epoch serves, because of why (Unavailable). What is in flight still yields its results.
  void Stop(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mu_);

  absl::StatusOr<PipelineCapacity> Capacity() const override ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Submit(Step step, size_t chain, Matrix hidden) override ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<StepResult> NextResult(absl::Duration timeout) override ABSL_LOCKS_EXCLUDED(mu_);
  void SetActiveSequences(size_t count) override { on_active_(count); }

 private:
  struct Entry {
    std::shared_ptr<Pipeline> pipeline;
    size_t in_flight = 0;
  };

  using Entries = std::vector<std::shared_ptr<Entry>>;

  // Takes out what is over and drained. The caller lets go of it without the lock: ending a
  // pipeline takes time.
  Entries TakeDrained() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasEntry() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !entries_.empty(); }

  const std::function<void(size_t)> on_active_;

  mutable absl::Mutex mu_;
  // Oldest first. The last is the present epoch's if serving_; the others have steps in flight.
  std::deque<std::shared_ptr<Entry>> entries_ ABSL_GUARDED_BY(mu_);
  bool serving_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status reason_ ABSL_GUARDED_BY(mu_) = absl::UnavailableError("starting");
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_SWITCHING_PIPELINE_H_
