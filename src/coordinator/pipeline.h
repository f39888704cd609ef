// Where the scheduler sends its steps: through the stages of the present epoch, be they workers or
// this process.
#ifndef EFEDLLM_COORDINATOR_PIPELINE_H_
#define EFEDLLM_COORDINATOR_PIPELINE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster/stage_timing.h"
#include "cluster/step.h"
#include "common/ids.h"
#include "tensor/matrix.h"

namespace efedllm {

// A chain goes on where a chain of an earlier epoch ended: the KV of its sequences is still there.
struct ChainContinuation {
  Epoch epoch;       // the one before that served
  size_t chain = 0;  // of that epoch
  // Stages of the new chain that do not have that KV, by index, ascending; not all of them. Replays
  // bring it back (cluster/step.h).
  std::vector<uint32_t> lost;
};

// One pipeline through all of the model's layers.
struct ChainCapacity {
  size_t stages = 1;
  uint64_t kv_tokens = 0;  // token positions, all sequences together, counted in whole KV pages
  std::optional<ChainContinuation> continues = std::nullopt;
};

// Steps that may be on their way through a chain at once: enough to hide long links.
inline size_t MaxStepsInFlight(const ChainCapacity& chain) { return 4 * chain.stages + 4; }

// What the present epoch can take.
struct PipelineCapacity {
  Epoch epoch;
  std::vector<ChainCapacity> chains;  // at least one; several are replicas of the whole model
  StepLimits limits;
};

struct StepResult {
  Epoch epoch;
  size_t chain = 0;
  StepId id;
  Matrix hidden;        // [tokens, d_model] after the last layer; empty where status is not OK
  absl::Status status;  // Unavailable or Aborted: the epoch is over, all its KV is lost, replay;
                        // others: the step was wrong
  std::vector<StageTiming> timings;  // of the stages in their order, as far as the step came
  absl::Time returned;               // when it was here, to wait for NextResult; with timings
  uint32_t received_codec = 0;       // of hidden, as StageTiming; 0: it crossed no hop
  uint32_t received_bytes = 0;
};

// Thread-safe. One thread (the scheduler's) submits and takes results.
class Pipeline {
 public:
  virtual ~Pipeline() = default;

  // The present epoch. Unavailable: none serves, and why, in words for a client ("waiting for 2 of
  // 3 workers", "loading weights: 40 %").
  virtual absl::StatusOr<PipelineCapacity> Capacity() const = 0;

  // Starts a step of the present epoch (step.epoch) on one of its chains, hidden: [step.tokens(),
  // d_model]. Step ids are unique in an epoch. Steps of a chain run in the order of Submit; at most
  // MaxStepsInFlight of them at once. Aborted: step.epoch is not the present one. A step that was
  // accepted yields exactly one result, within a deadline.
  virtual absl::Status Submit(Step step, size_t chain, Matrix hidden) = 0;

  // Results, in the order of Submit within a chain and epoch. nullopt: timeout.
  virtual std::optional<StepResult> NextResult(absl::Duration timeout) = 0;

  // Sequences that hold KV now. The cluster plans anew for a worker that joined when this is 0 (or
  // after a while anyway).
  virtual void SetActiveSequences(size_t count) = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_PIPELINE_H_
