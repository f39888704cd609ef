// Takes steps from the upstream, runs the stage over them, and sends them on, straight to the next
// node.
#ifndef EFEDLLM_WORKER_STAGE_RUNNER_H_
#define EFEDLLM_WORKER_STAGE_RUNNER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
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

// Three threads, one of which computes while another decodes the next step and the third encodes
// and sends the one before. Each takes a frame through all of that, and waits for its turn at the
// compute and at the sending before it gives up the one it has: frames keep their order, and one
// that meets nobody is handed over to no other thread.
class StageRunner {
 public:
  // receiver is borrowed, outlives this, and its server has started. on_failure: called on one of
  // the runner's threads when a stage can't go on (the stage is dropped by then); the message is
  // for the coordinator.
  using FailureCallback = std::function<void(Epoch epoch, const absl::Status& why)>;
  StageRunner(NodeId self, HopReceiver& receiver, FailureCallback on_failure);
  // Shuts the receiver down and ends the threads.
  ~StageRunner();

  // From now on steps of this stage's epoch run, from its upstream alone. The one before was
  // dropped. Thread-safe, and so are all below.
  void Install(RunningStage stage) ABSL_LOCKS_EXCLUDED(mu_);
  // Drops the stage, if there is one: waits for the step under way; those behind it are lost.
  void Drop() ABSL_LOCKS_EXCLUDED(mu_);

  // Of the present stage, or of the last one where it was dropped: epoch 0 then.
  StageCounters counters() const ABSL_LOCKS_EXCLUDED(counters_mu_);

 private:
  struct Stage;
  class Visit;
  struct Moments;

  void Loop();
  absl::Status PassFrame(StepFrame& frame, std::shared_ptr<Stage>& stage);
  absl::Status Read(const HopFrame& hop, Stage& stage, StepFrame& frame)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(intake_);
  void Compute(Stage& stage, StepFrame& frame) ABSL_EXCLUSIVE_LOCKS_REQUIRED(compute_);
  // The frame for the next node: the step's result, or why there is none.
  grpc::ByteBuffer Write(const Stage& stage, Moments& moments, StepFrame& frame) const;
  absl::Status Send(Stage& stage, const grpc::ByteBuffer& bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(send_);
  void Fail(const std::shared_ptr<Stage>& stage, const absl::Status& why) ABSL_LOCKS_EXCLUDED(mu_);
  void DropLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Constant after construction.
  const NodeId self_;
  HopReceiver& receiver_;
  const FailureCallback on_failure_;

  std::atomic<bool> stopping_{false};

  // The turns of a frame: held from before it is received, run, sent.
  absl::Mutex intake_;
  absl::Mutex compute_ ABSL_ACQUIRED_AFTER(intake_);
  absl::Mutex send_ ABSL_ACQUIRED_AFTER(compute_);

  absl::Mutex mu_;
  std::shared_ptr<Stage> stage_ ABSL_GUARDED_BY(mu_);

  mutable absl::Mutex counters_mu_ ABSL_ACQUIRED_AFTER(mu_);
  StageCounters counters_ ABSL_GUARDED_BY(counters_mu_);

  std::vector<std::thread> threads_;  // last: they use all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_STAGE_RUNNER_H_
