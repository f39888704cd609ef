// Where bugs of a serving layer, and of what takes its results, are planted.
#include <utility>

#include "absl/strings/str_cat.h"
#include "faultsim/frame_numbers.h"
#include "faultsim/sim_coordinator.h"

namespace efedllm::faultsim {
namespace {

// For the log.
std::string Describe(const Step& step, size_t chain) {
  std::string text = absl::StrCat("sends step ", step.id.v, " of epoch ", step.epoch.v);
  if (chain > 0) absl::StrAppend(&text, ", chain ", chain);
  if (step.forget_others) absl::StrAppend(&text, ", forget others");
  for (const SequenceTrim& trim : step.trims) {
    absl::StrAppend(&text, ", ", trim.length == 0 ? "end " : "trim ", trim.sequence.v);
    if (trim.length > 0) absl::StrAppend(&text, " to ", trim.length);
  }
  for (const SequenceFork& fork : step.forks) {
    absl::StrAppend(&text, ", fork ", fork.parent.v, " to ", fork.sequence.v, " at ", fork.tokens);
  }
  for (const SequenceSpan& span : step.spans) {
    absl::StrAppend(&text, step.replay() ? ", replay " : ", run ", span.sequence.v, " [",
                    span.first_position, ", ", span.first_position + span.tokens, ")");
  }
  return text;
}

}  // namespace

bool WatchedPipeline::all_stepped() const {
  const absl::StatusOr<PipelineCapacity> capacity = pipeline_.Capacity();
  return capacity.ok() && capacity->epoch == last_epoch_ &&
         stepped_chains_.size() == capacity->chains.size();
}

absl::Status WatchedPipeline::Submit(Step step, size_t chain, Matrix hidden) {
  if (!world_.coordinator.up) return absl::AbortedError("the process is gone");
  if (std::exchange(last_epoch_, step.epoch) != step.epoch) stepped_chains_.clear();
  stepped_chains_.insert(chain);
  if (world_.log) world_.Say("coordinator", Describe(step, chain));
  if (world_.Is(Mutation::kResumesTooFar)) ResumeTooFar(step);
  return pipeline_.Submit(std::move(step), chain, std::move(hidden));
}

void WatchedPipeline::ResumeTooFar(Step& step) {
  if (step.forget_others) {
    too_far_.clear();
    for (SequenceTrim& trim : step.trims) {
      if (trim.length == 0) continue;
      ++trim.length;
      too_far_.insert(trim.sequence);
    }
  }
  if (step.replay()) return;
  for (SequenceSpan& span : step.spans) {
    if (too_far_.count(span.sequence) > 0) ++span.first_position;
  }
}

std::optional<StepResult> WatchedPipeline::NextResult(absl::Duration) {
  if (held_back_) return std::exchange(held_back_, std::nullopt);
  std::optional<StepResult> result = pipeline_.NextResult(absl::ZeroDuration());
  had_result_ |= result.has_value();
  if (result)
    world_.Say("coordinator", "has step ", result->id.v, " back", result->status.ok() ? "" : ": ",
               result->status.message());
  if (!world_.Is(Mutation::kResultsOutOfOrder) || !result) return result;
  held_back_ = pipeline_.NextResult(absl::ZeroDuration());
  if (held_back_ && held_back_->chain == result->chain &&
      held_back_->hidden.rows() == result->hidden.rows()) {
    std::swap(held_back_->hidden, result->hidden);
  }
  return result;
}

HopFrame SimCoordinator::MutateResult(HopFrame frame) const {
  if (world_.Is(Mutation::kUncheckedFrames)) {
    frame.bytes = BufferOf(WithRightChecksum(BytesOf(frame.bytes)));
  }
  return frame;
}

}  // namespace efedllm::faultsim
