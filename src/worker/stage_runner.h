// The one thread that computes: takes steps from the upstream, runs the stage over them, and sends
// them on, straight to the next node.
#ifndef EFEDLLM_WORKER_STAGE_RUNNER_H_
#define EFEDLLM_WORKER_STAGE_RUNNER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "cluster/step.h"
#include "common/ids.h"
#include "model/stage_executor.h"
#include "net/hop.h"
#include "svd/codec.h"
#include "wire/cluster_wire.h"
#include "wire/step_wire.h"

namespace efedllm {

// A stage that is loaded and tested, with its edges.
struct RunningStage {
  Epoch epoch;
  NodeId upstream;
  StepLimits limits;
  size_t d_model = 0;
  CodecId codec = CodecId::kF32;
  std::unique_ptr<StageExecutor> executor;
  std::unique_ptr<HopSender> downstream;
};

class StageRunner {
 public:
  // receiver is borrowed, outlives this, and its server has started. on_failure: called on the
  // runner's thread when a stage can't go on (the stage is dropped by then); the message is for
  // the coordinator.
  using FailureCallback = std::function<void(Epoch epoch, const absl::Status& why)>;
  StageRunner(NodeId self, HopReceiver& receiver, FailureCallback on_failure);
  // Shuts the receiver down and ends the thread.
  ~StageRunner();

  // From now on steps of this stage's epoch run, from its upstream alone. Thread-safe, and so are
  // all below.
  void Install(RunningStage stage) ABSL_LOCKS_EXCLUDED(mu_);
  // Drops the stage, if there is one: waits for the step under way.
  void Drop() ABSL_LOCKS_EXCLUDED(mu_);

  // Of the present stage, or of the last one where it was dropped: epoch 0 then.
  StageCounters counters() const ABSL_LOCKS_EXCLUDED(counters_mu_);

 private:
  void Loop();
  absl::Status OnFrame(const HopFrame& frame) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckOrder(const Step& step) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The frame for the next node: the step's result, or why there is none.
  grpc::ByteBuffer RunStep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status SendOn(const grpc::ByteBuffer& bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Count(uint64_t tokens, absl::Duration compute, uint64_t bytes_in, uint64_t bytes_out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Constant after construction.
  const NodeId self_;
  HopReceiver& receiver_;
  const FailureCallback on_failure_;

  std::atomic<bool> stopping_{false};
  std::atomic<int> waiting_to_drop_{0};  // a send that waits gives way

  absl::Mutex mu_;  // held while a step runs
  std::optional<RunningStage> stage_ ABSL_GUARDED_BY(mu_);
  std::optional<StepId> last_step_ ABSL_GUARDED_BY(mu_);
  StepFrame frame_ ABSL_GUARDED_BY(mu_);  // reused from step to step
  absl::Duration compute_ ABSL_GUARDED_BY(mu_);

  mutable absl::Mutex counters_mu_ ABSL_ACQUIRED_AFTER(mu_);
  StageCounters counters_ ABSL_GUARDED_BY(counters_mu_);

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_STAGE_RUNNER_H_
