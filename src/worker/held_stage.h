// A stage that a worker holds: what becomes of a frame in it. No threads and no clock of its own,
// so that StageRunner and the simulation run the very same.
#ifndef EFEDLLM_WORKER_HELD_STAGE_H_
#define EFEDLLM_WORKER_HELD_STAGE_H_

#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cluster/stage_timing.h"
#include "common/clock.h"
#include "common/ids.h"
#include "model/stage_executor.h"
#include "net/hop.h"
#include "svd/boundary_basis.h"
#include "svd/codec.h"
#include "svd/row_range.h"
#include "wire/cluster_wire.h"
#include "wire/step_wire.h"
#include "worker/stage_receipts.h"
#include "worker/stage_tamper.h"

namespace efedllm {

// What it codes with; null where a boundary has none.
struct StageBases {
  std::shared_ptr<const BoundaryBasis> upstream, downstream;
};

// Grows only. A halted stage runs nothing any more, but its KV stays for the next epoch to adopt.
enum class StageLife { kPrepared, kRunning, kHalted, kEnded };

// A frame on its way through a stage, with its moments. Its memory is reused from step to step.
struct PassingFrame {
  StepFrame frame;
  absl::Time received;
  absl::Time decoding, decoded;
  absl::Time computing, computed;
  DigestedRows inputs, outputs;  // for receipts, where the stage gives any
};

// Of a frame, Read comes before Compute before Write; Read in the order of arrival, Compute in the
// order of Read, one Read, one Compute and one Write at a time. life() may be asked by any thread.
class HeldStage {
 public:
  // executor: null where the stage goes on with the KV of the one that runs (StageSlots adopts it).
  // downstream: where its frames go; the stage only keeps it. clock is borrowed and outlives this.
  // receipts: null where it gives none. tamper: borrowed, of tests; null: it works as it should.
  HeldStage(Assignment assignment, NodeId self, std::shared_ptr<StageExecutor> executor,
            StageBases bases, std::unique_ptr<FrameSender> downstream, const Clock& clock,
            std::unique_ptr<StageReceipts> receipts = nullptr, const StageTamper* tamper = nullptr);

  const Assignment& assignment() const { return assignment_; }
  Epoch epoch() const { return assignment_.epoch; }
  NodeId upstream() const { return assignment_.upstream; }
  StageLife life() const { return life_; }
  bool running() const { return life_ == StageLife::kRunning; }
  FrameSender& downstream() { return *downstream_; }
  StageExecutor* executor() { return executor_.get(); }  // null: not adopted yet

  // InvalidArgument, DataLoss: the upstream sent what is not the next frame of this epoch, whole
  // and in order, in the codec that is agreed on, with activations as large as such are
  // (svd/row_range.h). The stage can't go on then.
  absl::Status Read(const HopFrame& hop, PassingFrame& pass);

  // Runs the step, or in a replay what is this stage's part of it. What only fails the step stands
  // in the frame then. DataLoss: the activations are not finite; the upstream can't be right.
  absl::Status Compute(PassingFrame& pass);

  // The frame for the next node: the step's result, or why there is none.
  grpc::ByteBuffer Write(PassingFrame& pass);

  // What was written goes into the stage's receipts. In the order of steps.
  void TellReceipts(PassingFrame& pass);

 private:
  friend class StageSlots;

  bool WantsReplay(uint32_t stage, const Step& step) const;
  // Whether this stage computes the step's spans.
  bool Computes(const Step& step) const;
  bool NextComputes(const Step& step) const;
  absl::Status RunStep(StepFrame& frame);
  absl::Status Execute(const Step& step, MatrixRef hidden);
  StageTiming TimingOf(const PassingFrame& pass, absl::Time encoding) const;

  // Constant after construction.
  const Assignment assignment_;
  const NodeId self_;
  const std::unique_ptr<FrameSender> downstream_;
  const Clock& clock_;
  const std::unique_ptr<StageReceipts> receipts_;
  const StageTamper* const tamper_;

  std::atomic<StageLife> life_{StageLife::kPrepared};
  // Of StageSlots; constant from the first frame on.
  std::shared_ptr<StageExecutor> executor_;
  std::vector<Epoch> lineage_;  // epochs whose KV it has: its own, and what it went on with

  std::optional<StepId> last_step_;  // of Read
  ActivationCodec decoder_;          // of Read
  RowRange range_;                   // of Read
  ActivationCodec encoder_;          // of Write
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_HELD_STAGE_H_
