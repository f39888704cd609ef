// One epoch over workers: steps go to the first stage, results come from the last.
#ifndef EFEDLLM_COORDINATOR_CLUSTER_PIPELINE_H_
#define EFEDLLM_COORDINATOR_CLUSTER_PIPELINE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "coordinator/pipeline.h"
#include "net/hop.h"
#include "svd/codec.h"
#include "wire/step_wire.h"

namespace efedllm {

// Where the last stages' frames arrive. One for the process; epochs take turns.
struct HopInbox {
  HopReceiver& receiver;
  absl::Mutex mu;  // held while somebody asks the receiver
};

struct ClusterPipelineOptions {
  PipelineCapacity capacity;
  size_t d_model = 0;
  CodecId codec = CodecId::kF32;
  NodeId last_node;  // whose frames are results
  // Of one step of so many tokens, all stages. A step fails the epoch when it takes far longer.
  std::function<absl::Duration(size_t tokens)> estimate;
  absl::Duration least_deadline = absl::Seconds(10);
  // Called once, when the epoch ends, by whichever thread ends it, with no lock held.
  std::function<void(const absl::Status& why)> on_end;
};

// The epoch ends once: by End, by a broken hop, by a step that takes too long, or by a peer that
// answers with what was not asked. Then every step in flight yields Unavailable.
class ClusterPipeline final : public Pipeline {
 public:
  // first: the hop to the first stage. inbox is borrowed and outlives this; the pipeline that used
  // it before has ended.
  ClusterPipeline(const ClusterPipelineOptions& options, std::unique_ptr<HopSender> first,
                  HopInbox& inbox);

  absl::StatusOr<PipelineCapacity> Capacity() const override ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Submit(Step step, size_t chain, Matrix hidden) override ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<StepResult> NextResult(absl::Duration timeout) override ABSL_LOCKS_EXCLUDED(mu_);
  void SetActiveSequences(size_t) override {}

  // Sends one made-up token through all stages and back, and frees it again. Before the epoch is
  // anybody else's.
  absl::Status Probe(absl::Duration timeout);

  // No effect after the first. Never blocks.
  void End(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mu_);
  // OK while the epoch lives. Cheap.
  absl::Status ended() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct InFlight {
    Step step;       // as it is on the wire
    StepId id;       // the caller's
    absl::Time due;  // by the system's clock, like the transport's
  };

  absl::Duration Deadline(size_t tokens) const;
  std::optional<HopFrame> Receive(absl::Time until);
  // The result of the oldest step, if the frame is one.
  std::optional<StepResult> Accept(const HopFrame& hop) ABSL_LOCKS_EXCLUDED(mu_);
  // That of the oldest step, once the epoch has ended; nullopt: none is in flight.
  std::optional<StepResult> TakeLost() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasSteps() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !in_flight_.empty(); }

  // Constant after construction.
  const ClusterPipelineOptions options_;
  const std::unique_ptr<HopSender> first_;
  HopInbox& inbox_;

  StepFrame frame_;  // of the thread that takes results

  mutable absl::Mutex mu_;
  absl::Status ended_ ABSL_GUARDED_BY(mu_);
  uint64_t next_step_ ABSL_GUARDED_BY(mu_) = 1;
  size_t tokens_in_flight_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<InFlight> in_flight_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_CLUSTER_PIPELINE_H_
