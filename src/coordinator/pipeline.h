// Where the scheduler sends its steps: through the stages of the present epoch, be they workers or
// this process.
#ifndef EFEDLLM_COORDINATOR_PIPELINE_H_
#define EFEDLLM_COORDINATOR_PIPELINE_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster/step.h"
#include "common/ids.h"
#include "tensor/matrix.h"

namespace efedllm {

// What the present epoch can take.
struct PipelineCapacity {
  Epoch epoch;
  size_t stages = 1;  // this many steps in flight keep every stage busy
  uint64_t kv_tokens =
      0;  // token positions, all sequences together, counted in whole KV pages per sequence
  StepLimits limits;
};

struct StepResult {
  Epoch epoch;
  StepId id;
  Matrix hidden;        // [tokens, d_model] after the last layer; empty where status is not OK
  absl::Status status;  // Unavailable or Aborted: the epoch is over, all its KV is lost, replay;
                        // others: the step was wrong
};

// Thread-safe. One thread (the scheduler's) submits and takes results.
class Pipeline {
 public:
  virtual ~Pipeline() = default;

  // The present epoch. Unavailable: none serves, and why, in words for a client ("waiting for 2 of
  // 3 workers", "loading weights: 40 %").
  virtual absl::StatusOr<PipelineCapacity> Capacity() const = 0;

  // Starts a step of the present epoch (step.epoch), hidden: [step.tokens(), d_model]. Steps run in
  // the order of Submit. At most 2 x stages + 1 may be in flight. Aborted: step.epoch is not the
  // present one. A step that was accepted yields exactly one result, within a deadline.
  virtual absl::Status Submit(Step step, Matrix hidden) = 0;

  // Results, in the order of Submit within an epoch. nullopt: timeout.
  virtual std::optional<StepResult> NextResult(absl::Duration timeout) = 0;

  // Sequences that hold KV now. The cluster plans anew for a worker that joined when this is 0 (or
  // after a while anyway).
  virtual void SetActiveSequences(size_t count) = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_PIPELINE_H_
