// What the scheduler's thread does turn by turn: follows the epoch, admits, sends steps into the
// chains, takes what comes back. All state of the sequences is here.
#ifndef EFEDLLM_COORDINATOR_SERVING_LOOP_H_
#define EFEDLLM_COORDINATOR_SERVING_LOOP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/batcher.h"
#include "coordinator/fair_queue.h"
#include "coordinator/pipeline.h"
#include "coordinator/sequence.h"
#include "coordinator/served_model.h"
#include "coordinator/serving_metrics.h"
#include "coordinator/speculator.h"
#include "coordinator/step_observers.h"

namespace efedllm {

struct ServingLimits {
  size_t max_sequences = 16;       // that run at once on a chain
  uint32_t max_step_tokens = 256;  // rows in a step
};

// Since the start.
struct ServingCounts {
  uint64_t generated_tokens = 0;
  uint64_t steps = 0;
  uint64_t replays = 0;      // sequences interrupted because an epoch ended or a step failed
  uint64_t preemptions = 0;  // sequences that made room for others, and came back
  uint64_t passes = 0;       // steps with tokens that went through all stages
  absl::Time last_pass = absl::InfinitePast();
};

// Not thread-safe.
class ServingLoop {
 public:
  // Everything is borrowed and outlives this.
  ServingLoop(const Clock& clock, ServedModel& model, Pipeline& pipeline,
              const ServingLimits& limits, Speculator& speculator, SchedulerMetrics& metrics,
              const StepObservers& observers);

  void Add(std::shared_ptr<Sequence> sequence) { waiting_.Push(std::move(sequence)); }

  // Begins the pipeline's epoch, or ends what is over: what ran waits again. OK: it serves; else
  // why not, in words for a client.
  absl::Status FollowEpoch();
  // Fails everything that waits.
  void FailWaiting(const absl::Status& status);
  // The end: everything fails.
  void FailAll(const absl::Status& status);

  // Forgets whom nobody waits for any more, admits, and sends off as many steps as there should be.
  void SendSteps();
  // Waits for a step to come back, and takes it. False: none is in flight.
  bool TakeStep();

  bool serving() const { return capacity_.has_value(); }
  // Positions that one sequence may have. 0: nothing serves.
  uint32_t max_positions() const;
  size_t waiting() const { return waiting_.size() + carried(); }
  size_t running() const;
  size_t in_flight() const;
  size_t carried() const;     // between two epochs
  size_t holding_kv() const;  // sequences
  // In whole pages, over all chains.
  uint64_t kv_tokens_held() const;    // by what runs
  uint64_t kv_tokens_cached() const;  // by what nobody needs now
  uint64_t kv_tokens_total() const;
  const ServingCounts& counts() const { return counts_; }

 private:
  void BeginEpoch(const PipelineCapacity& capacity);
  void EndEpoch(const absl::Status& why);
  // Those that were carried into an epoch that does not go on with their KV.
  void Requeue(std::vector<std::shared_ptr<Sequence>> sequences);
  void EndPause();
  void DropDead();
  void Admit();
  Batcher* ChainFor(const Sequence& sequence);
  Batcher* Preempt(const Sequence& by);
  void SendStepsOf(Batcher& chain);
  // They wait again.
  void MadeRoom(std::vector<std::shared_ptr<Sequence>> sequences);
  // All that runs on the chain waits again. Returns how many had begun.
  size_t Replay(Batcher& chain);
  void FailStep(Batcher& chain, const Batcher::StepInFlight& step, const absl::Status& status);
  void TakeResult(StepResult result);
  void TakeRows(Batcher& chain, const Batcher::StepInFlight& step, const Matrix& hidden);
  void CountToken(Sequence& sequence);

  const Clock& clock_;
  ServedModel& model_;
  Pipeline& pipeline_;
  const ServingLimits limits_;
  Speculator& speculator_;
  SchedulerMetrics& metrics_;
  const StepObservers observers_;

  FairQueue waiting_;
  std::optional<PipelineCapacity> capacity_;
  SequenceIds sequence_ids_;
  std::vector<std::unique_ptr<Batcher>> chains_;  // of the present epoch
  std::optional<Epoch> over_;  // this epoch has ended, whatever the pipeline still says
  // What ran when it ended, by chain: until the next one begins.
  std::vector<std::vector<Batcher::Carried>> carried_;
  std::optional<absl::Time> paused_since_;  // sequences wait for a step of the next epoch
  uint64_t last_step_ = 0;                  // of this epoch
  absl::Duration sending_;  // spent on making and sending steps since the last logits
  ServingCounts counts_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_SERVING_LOOP_H_
