// Takes steps from the upstream, runs the stage over them, and sends them on, straight to the next
// node.
#ifndef EFEDLLM_WORKER_STAGE_RUNNER_H_
#define EFEDLLM_WORKER_STAGE_RUNNER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/ids.h"
#include "net/hop.h"
#include "wire/cluster_wire.h"
#include "worker/edge_watch.h"
#include "worker/held_stage.h"
#include "worker/stage_slots.h"

namespace efedllm {

// StageSlots with threads. Three of them take frames: one computes while another decodes the next
// step and the third encodes and sends the one before. Each takes a frame through all of that, and
// waits for its turn at the compute and at the sending before it gives up the one it has: frames
// keep their order, and one that meets nobody is handed over to no other thread. A fourth asks the
// next node for a sign of life when frames pause, and lets go of stages that ended.
class StageRunner {
 public:
  // receiver and clock are borrowed and outlive this; the receiver's server has started.
  // on_failure: called on one of the runner's threads when a stage can't go on (it is halted by
  // then); the message is for the coordinator.
  using FailureCallback =
      std::function<void(Epoch epoch, const absl::Status& why, StageFault fault)>;
  StageRunner(HopReceiver& receiver, const Clock& clock, FailureCallback on_failure);
  // Shuts the receiver down and ends the threads.
  ~StageRunner();

  // All below are thread-safe. See StageSlots for what is not said here.
  bool CanContinue(const Assignment& assignment) const ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t BytesBeside(const Assignment& assignment) const ABSL_LOCKS_EXCLUDED(mu_);

  // From its upstream's first frame on, the stage runs. FailedPrecondition: it was to go on with
  // KV that is gone since.
  absl::Status Prepare(std::shared_ptr<HeldStage> stage) ABSL_LOCKS_EXCLUDED(mu_);
  // Each waits for the step under way, and frees what the stage held. DropRunning returns the epoch
  // of the stage that ran; nullopt: there was none.
  void DropPrepared() ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<Epoch> DropRunning() ABSL_LOCKS_EXCLUDED(mu_);
  void Release() ABSL_LOCKS_EXCLUDED(mu_);

  // Halts the stage that runs, if it is of this epoch, after the step under way: what KV it has
  // then. NotFound: it isn't.
  absl::StatusOr<std::vector<KvExtent>> Halt(Epoch epoch) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<grpc::ByteBuffer> Export(Epoch epoch, Epoch next_epoch, const KvExtent& extent,
                                          uint32_t& first) const ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Import(const grpc::ByteBuffer& frame) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status FinishImport(Epoch epoch) ABSL_LOCKS_EXCLUDED(mu_);

  // Of the stage that runs, or of the prepared one where none does, or of the last one: epoch 0
  // then.
  StageCounters counters() const ABSL_LOCKS_EXCLUDED(counters_mu_);

 private:
  class Visit;

  void Loop();
  void PassFrame(PassingFrame& pass);
  absl::Status ReadAndEnter(const HopFrame& hop, const std::shared_ptr<HeldStage>& stage,
                            PassingFrame& pass) ABSL_EXCLUSIVE_LOCKS_REQUIRED(intake_)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Send(HeldStage& stage, const grpc::ByteBuffer& bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(send_);
  bool NextEpochHasBegun(const HeldStage& stage) ABSL_LOCKS_EXCLUDED(mu_);
  void Count(const HopFrame& in, const grpc::ByteBuffer& out, const PassingFrame& pass,
             uint64_t sequences, uint64_t kv_tokens_used) ABSL_LOCKS_EXCLUDED(counters_mu_);
  void CountFrom(HeldStage* stage) ABSL_LOCKS_EXCLUDED(counters_mu_);
  void Fail(const std::shared_ptr<HeldStage>& stage, const absl::Status& why, StageFault fault)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Changes the slots, and waits until no frame is in the stages that end by it.
  void DropAndWait(absl::FunctionRef<void(StageSlots&)> drop) ABSL_LOCKS_EXCLUDED(mu_);

  void Watch() ABSL_LOCKS_EXCLUDED(mu_, watch_mu_);
  void AskDownstream() ABSL_LOCKS_EXCLUDED(mu_, watch_mu_);
  void LetGo() ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  HopReceiver& receiver_;
  const Clock& clock_;
  const FailureCallback on_failure_;

  // The turns of a frame: held from before it is received, run, sent.
  absl::Mutex intake_;
  absl::Mutex compute_ ABSL_ACQUIRED_AFTER(intake_);
  absl::Mutex send_ ABSL_ACQUIRED_AFTER(compute_);

  mutable absl::Mutex mu_;
  std::atomic<bool> stopping_{false};  // set under mu_
  StageSlots slots_ ABSL_GUARDED_BY(mu_);
  // Ended, and not let go of yet. Frames hold references of their own, and give them up under mu_.
  std::vector<std::shared_ptr<HeldStage>> ended_ ABSL_GUARDED_BY(mu_);

  absl::Mutex watch_mu_;
  EdgeWatch watch_ ABSL_GUARDED_BY(watch_mu_);

  mutable absl::Mutex counters_mu_ ABSL_ACQUIRED_AFTER(mu_);
  StageCounters counters_ ABSL_GUARDED_BY(counters_mu_);

  std::vector<std::thread> threads_;  // last: they use all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_STAGE_RUNNER_H_
