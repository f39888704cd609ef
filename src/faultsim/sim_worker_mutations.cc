// Bugs that are planted into a simulated worker.
#include <algorithm>

#include "faultsim/sim_worker.h"
#include "wire/frame.h"
#include "wire/frame_epoch.h"

namespace efedllm::faultsim {

grpc::ByteBuffer WithRightChecksum(const grpc::ByteBuffer& frame) {
  std::string bytes = BytesOf(frame);
  if (bytes.size() < kChecksumBytes) return frame;
  bytes.resize(bytes.size() - kChecksumBytes);
  return SealFrame(std::move(bytes));
}

void SimWorker::MutateArrival(HopFrame& hop) {
  if (world_.Is(Mutation::kUncheckedFrames)) hop.bytes = WithRightChecksum(hop.bytes);
  if (!world_.Is(Mutation::kSkippedEpochCheck)) return;
  const std::optional<Epoch> epoch = FrameEpoch(hop.bytes);
  const auto& running = life_->slots.running();
  if (!epoch || running == nullptr || !running->running() || *epoch >= running->epoch() ||
      running->upstream() != hop.peer) {
    return;
  }
  StepFrame frame;
  const Assignment& assignment = running->assignment();
  if (!StepFromWire(hop.bytes, assignment.limits, assignment.config.d_model, frame).ok()) return;
  (void)running->executor()->Run(frame.step, frame.hidden.ref());
}

void SimWorker::MutateStep(PassingFrame& pass) const {
  Step& step = pass.frame.step;
  if (world_.Is(Mutation::kForgetsNobody)) step.forget_others = false;
  if (world_.Is(Mutation::kKvNotFreed)) {
    std::erase_if(step.trims, [](const SequenceTrim& trim) { return trim.length == 0; });
  }
}

void SimWorker::MutateResult(PassingFrame& pass, const HeldStage& stage) const {
  const Step& step = pass.frame.step;
  Matrix& hidden = pass.frame.hidden;
  if (!world_.Is(Mutation::kStaleOutputs) || !step.replay() || hidden.rows() < 2) return;
  const bool computed = std::binary_search(step.replay_stages.begin(), step.replay_stages.end(),
                                           stage.assignment().stage);
  if (computed) return;
  for (size_t row = hidden.rows() - 1; row > 0; --row) {
    std::copy_n(hidden.row(row - 1), hidden.cols(), hidden.row(row));
  }
}

}  // namespace efedllm::faultsim
