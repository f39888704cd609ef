// Bugs that are planted into a simulated worker.
#include <algorithm>

#include "faultsim/frame_numbers.h"
#include "faultsim/sim_worker.h"

namespace efedllm::faultsim {

void SimWorker::MutateArrival(HopFrame& hop) {
  if (world_.Is(Mutation::kUncheckedFrames)) {
    hop.bytes = BufferOf(WithRightChecksum(BytesOf(hop.bytes)));
  }
  if (!world_.Is(Mutation::kSkippedEpochCheck)) return;
  const auto& running = life_->slots.running();
  if (running == nullptr || !running->running() || running->upstream() != hop.peer) return;
  const std::string bytes = BytesOf(hop.bytes);
  const auto numbers = NumbersOf(bytes);
  if (!numbers || numbers->epoch >= running->epoch()) return;
  hop.bytes = BufferOf(WithEpoch(bytes, running->epoch()));
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
