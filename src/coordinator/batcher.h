// The scheduler's state and decisions: who waits, who runs, which steps are in flight. The
// scheduler's thread owns it; nothing in here waits.
#ifndef EFEDLLM_COORDINATOR_BATCHER_H_
#define EFEDLLM_COORDINATOR_BATCHER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cluster/step.h"
#include "cluster/step_planner.h"
#include "common/ids.h"
#include "coordinator/pipeline.h"
#include "coordinator/sequence.h"

namespace efedllm {

// Not thread-safe.
class Batcher {
 public:
  // A sequence's part in a step.
  struct Part {
    std::shared_ptr<Sequence> sequence;
    SequenceSpan span;
  };
  struct StepInFlight {
    Step step;
    std::vector<Part> parts;  // in the order of step.spans
    absl::Time submitted_at;

    std::vector<int32_t> Tokens() const;  // row by row
  };

  // max_sequences: that run at once; max_step_tokens: rows in a step.
  Batcher(size_t max_sequences, uint32_t max_step_tokens)
      : max_sequences_(max_sequences), max_step_tokens_(max_step_tokens) {}

  // A new sequence, behind those that wait.
  void Add(std::shared_ptr<Sequence> sequence) { waiting_.push_back(std::move(sequence)); }

  // The present epoch. A new one begins with nothing on any node: see EndEpoch.
  void BeginEpoch(const PipelineCapacity& capacity);
  // All KV is lost and no step will come back: what runs waits again, in front, to be replayed.
  // Returns how many sequences had begun.
  size_t EndEpoch();
  bool serving() const { return capacity_.has_value(); }
  // Only while serving.
  const PipelineCapacity& capacity() const { return *capacity_; }

  // Forgets sequences whose consumer is gone; their release travels in the next step.
  void DropCancelled();
  // Fails everything that waits; for when no epoch serves.
  void FailWaiting(const absl::Status& status);

  // The next step, if one should be submitted now; it counts as in flight at once. Admits what
  // fits. nullptr: nothing to do, or all stages are busy. Borrowed until the next call.
  const StepInFlight* NextStep(absl::Time now);
  // The step with that number, now out of flight. nullopt: none of this epoch.
  std::optional<StepInFlight> Finish(Epoch epoch, StepId id);
  // The step was refused or failed: its sequences end with this status.
  void FailStep(const StepInFlight& step, const absl::Status& status);
  // After a step's logits were taken: finished sequences give their KV back.
  void Retire(const StepInFlight& step);

  size_t waiting() const { return waiting_.size(); }
  size_t running() const { return running_.size(); }
  size_t in_flight() const { return in_flight_.size(); }
  // Would another step fit into the stages, if there were work for it?
  bool has_idle_stage() const {
    return serving() && in_flight_.size() < capacity_->chains[0].stages;
  }
  // That hold KV on the nodes.
  size_t holding_kv() const { return running_.size() + released_.size(); }
  uint64_t kv_reserved() const { return kv_reserved_; }

 private:
  struct Release {
    SequenceId sequence;
    uint64_t kv_tokens = 0;
  };

  void Admit();
  void Stop(const std::shared_ptr<Sequence>& sequence);
  void TakeReleases(Step& step);
  void TakeSpans(StepInFlight& next);

  const size_t max_sequences_;
  const uint32_t max_step_tokens_;

  std::optional<PipelineCapacity> capacity_;
  std::deque<std::shared_ptr<Sequence>> waiting_;
  std::vector<std::shared_ptr<Sequence>> running_;  // in the order of admission
  std::deque<Release> released_;                    // not yet told to the nodes
  std::deque<StepInFlight> in_flight_;              // in the order of submission
  uint64_t kv_reserved_ = 0;                        // by running_ and released_
  uint64_t last_step_ = 0;                          // of this epoch
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_BATCHER_H_
