#include "worker/held_stage.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr StepId kFirstStep{1};  // of an epoch

}  // namespace

HeldStage::HeldStage(Assignment assignment, NodeId self, std::shared_ptr<StageExecutor> executor,
                     StageBases bases, std::unique_ptr<FrameSender> downstream, const Clock& clock)
    : assignment_(std::move(assignment)),
      self_(self),
      downstream_(std::move(downstream)),
      clock_(clock),
      executor_(std::move(executor)),
      lineage_({assignment_.epoch}),
      decoder_(assignment_.config.d_model, std::move(bases.upstream)),
      encoder_(assignment_.config.d_model, std::move(bases.downstream)) {}

absl::Status HeldStage::Read(const HopFrame& hop, PassingFrame& pass) {
  pass.received = hop.received;
  pass.decoding = clock_.Now();
  const absl::Status read = StepFromWire(hop.bytes, assignment_.limits, decoder_, pass.frame);
  pass.decoded = clock_.Now();
  if (!read.ok()) {
    return absl::Status(read.code(),
                        absl::StrCat("from upstream ", NodeName(hop.peer), ": ", read.message()));
  }
  const Step& step = pass.frame.step;
  if (step.epoch != epoch()) {
    return absl::InvalidArgumentError(absl::StrCat("from upstream ", NodeName(hop.peer),
                                                   ": a step of epoch ", step.epoch.v,
                                                   " in a frame of epoch ", epoch().v));
  }
  const StepId expected = last_step_ ? StepId{last_step_->v + 1} : kFirstStep;
  if (step.id != expected) {
    return absl::InvalidArgumentError(absl::StrCat("from upstream ", NodeName(hop.peer), ": step ",
                                                   step.id.v, " came after step ", expected.v - 1));
  }
  last_step_ = step.id;
  return absl::OkStatus();
}

bool HeldStage::WantsReplay(uint32_t stage, const Step& step) const {
  return std::binary_search(step.replay_stages.begin(), step.replay_stages.end(), stage);
}

absl::Status HeldStage::RunStep(StepFrame& frame) {
  const Step& step = frame.step;
  if (!step.replay()) return executor_->Run(step, frame.hidden.ref());
  const size_t d_model = assignment_.config.d_model;
  const bool next_computes = WantsReplay(assignment_.stage + 1, step);
  if (WantsReplay(assignment_.stage, step)) {
    RETURN_IF_ERROR(executor_->Run(step, frame.hidden.ref()));
    if (!next_computes) frame.hidden = Matrix(0, d_model);
    return absl::OkStatus();
  }
  const size_t rows = next_computes ? step.tokens() : 0;
  if (frame.hidden.rows() != rows || frame.hidden.cols() != d_model) {
    frame.hidden = Matrix(rows, d_model);
  }
  return executor_->Recall(step, frame.hidden.ref());
}

absl::Status HeldStage::Compute(PassingFrame& pass) {
  StepFrame& frame = pass.frame;
  pass.computing = clock_.Now();
  if (frame.failure.ok()) {
    frame.failure = RunStep(frame);
    if (absl::IsDataLoss(frame.failure)) return frame.failure;
    if (!frame.failure.ok()) {
      frame.failed_node = self_;
      spdlog::warn("step {}: {}", frame.step.id.v, std::string(frame.failure.message()));
    }
  } else {
    // An earlier stage failed it: only its trims and forks happen here, and the reason is passed
    // on.
    Step rest = frame.step;
    rest.spans.clear();
    const absl::Status ran =
        executor_->Run(rest, MatrixRef{nullptr, 0, assignment_.config.d_model});
    if (!ran.ok()) spdlog::warn("trims and forks: {}", std::string(ran.message()));
  }
  pass.computed = clock_.Now();
  return absl::OkStatus();
}

StageTiming HeldStage::TimingOf(const PassingFrame& pass, absl::Time encoding) const {
  StageTiming timing;
  timing.node = self_;
  timing.received_micros = absl::ToUnixMicros(pass.received);
  timing.decode_micros = TimingMicros(pass.decoded - pass.decoding);
  timing.compute_micros = TimingMicros(pass.computed - pass.computing);
  timing.encode_micros = TimingMicros(clock_.Now() - encoding);
  timing.queue_micros = TimingMicros((pass.decoding - pass.received) +
                                     (pass.computing - pass.decoded) + (encoding - pass.computed));
  timing.received_codec = pass.frame.codec.number();
  timing.received_bytes = static_cast<uint32_t>(pass.frame.encoded_bytes);
  return timing;
}

grpc::ByteBuffer HeldStage::Write(PassingFrame& pass) {
  StepFrame& frame = pass.frame;
  const absl::Time encoding = clock_.Now();
  std::string activations;
  if (frame.failure.ok() && frame.hidden.rows() > 0) {
    encoder_.Encode(assignment_.codec, frame.hidden.ref(), activations);
  }
  if (frame.timings.size() < kMaxStages) frame.timings.push_back(TimingOf(pass, encoding));
  return frame.failure.ok()
             ? StepToWire(frame.step, std::move(activations), assignment_.codec, frame.timings)
             : StepFailureToWire(frame.step, frame.failed_node, frame.failure, frame.timings);
}

}  // namespace efedllm
