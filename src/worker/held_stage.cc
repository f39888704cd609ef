#include "worker/held_stage.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "wire/receipt_wire.h"

namespace efedllm {
namespace {

constexpr StepId kFirstStep{1};  // of an epoch

}  // namespace

HeldStage::HeldStage(Assignment assignment, NodeId self, std::shared_ptr<StageExecutor> executor,
                     StageBases bases, std::unique_ptr<FrameSender> downstream, const Clock& clock,
                     std::unique_ptr<StageReceipts> receipts, const StageTamper* tamper)
    : assignment_(std::move(assignment)),
      self_(self),
      downstream_(std::move(downstream)),
      clock_(clock),
      receipts_(std::move(receipts)),
      tamper_(tamper),
      executor_(std::move(executor)),
      lineage_({assignment_.epoch}),
      decoder_(assignment_.config.d_model, std::move(bases.upstream)),
      range_(decoder_.basis()),
      encoder_(assignment_.config.d_model, std::move(bases.downstream)) {}

absl::Status HeldStage::Read(const HopFrame& hop, PassingFrame& pass) {
  pass.received = hop.received;
  pass.decoding = clock_.Now();
  pass.inputs.rows.Clear();
  absl::Status read = StepFromWire(hop.bytes, assignment_.limits, decoder_, pass.frame,
                                   receipts_ ? &pass.inputs.rows : nullptr);
  if (read.ok()) read = range_.Check(pass.frame.hidden.ref());
  pass.inputs.codec = pass.frame.codec.number();
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
  if (pass.frame.hidden.rows() > 0 && pass.frame.codec != assignment_.upstream_codec) {
    return absl::InvalidArgumentError(absl::StrCat(
        "from upstream ", NodeName(hop.peer), ": activations as ", CodecLabel(pass.frame.codec),
        " where ", CodecLabel(assignment_.upstream_codec), " is agreed on"));
  }
  last_step_ = step.id;
  return absl::OkStatus();
}

bool HeldStage::WantsReplay(uint32_t stage, const Step& step) const {
  return std::binary_search(step.replay_stages.begin(), step.replay_stages.end(), stage);
}

bool HeldStage::Computes(const Step& step) const {
  return !step.replay() || WantsReplay(assignment_.stage, step);
}

// Whether the next stage computes the spans: if not, it is sent nothing of them.
bool HeldStage::NextComputes(const Step& step) const {
  return !step.replay() || WantsReplay(assignment_.stage + 1, step);
}

absl::Status HeldStage::Execute(const Step& step, MatrixRef hidden) {
  if (tamper_ == nullptr || !tamper_->outputs) return executor_->Run(step, hidden);
  Matrix inputs(hidden.rows, hidden.cols);
  std::copy_n(hidden.data, hidden.rows * hidden.cols, inputs.ref().data);
  RETURN_IF_ERROR(executor_->Run(step, hidden));
  tamper_->outputs(step, inputs.ref(), hidden);
  return absl::OkStatus();
}

absl::Status HeldStage::RunStep(StepFrame& frame) {
  const Step& step = frame.step;
  if (Computes(step)) return Execute(step, frame.hidden.ref());
  const size_t d_model = assignment_.config.d_model;
  const size_t rows = NextComputes(step) ? step.tokens() : 0;
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
  timing.received_bytes = static_cast<uint32_t>(pass.frame.encoded_bytes);
  return timing;
}

void HeldStage::TellReceipts(PassingFrame& pass) {
  if (!receipts_) return;
  const StepFrame& frame = pass.frame;
  if (!frame.failure.ok() || !Computes(frame.step) || frame.hidden.rows() == 0) {
    return receipts_->Passed(frame.step);
  }
  pass.outputs.codec = assignment_.codec.number();
  for (DigestedRows* side : {&pass.inputs, &pass.outputs}) {
    DigestRows(side->rows, side->codec, side->sides);
  }
  receipts_->Computed(frame.step, pass.inputs, pass.outputs, pass.computed - pass.computing,
                      (pass.decoding - pass.received) + (pass.computing - pass.decoded));
}

grpc::ByteBuffer HeldStage::Write(PassingFrame& pass) {
  StepFrame& frame = pass.frame;
  const absl::Time encoding = clock_.Now();
  const bool sends = NextComputes(frame.step);
  std::string activations;
  pass.outputs.rows.Clear();
  if (frame.failure.ok() && frame.hidden.rows() > 0 && (sends || receipts_)) {
    encoder_.Encode(assignment_.codec, frame.hidden.ref(), activations,
                    receipts_ ? &pass.outputs.rows : nullptr);
    if (!sends) activations.clear();
  }
  if (frame.timings.size() < kMaxStages) frame.timings.push_back(TimingOf(pass, encoding));
  return frame.failure.ok()
             ? StepToWire(frame.step, std::move(activations), assignment_.codec, frame.timings)
             : StepFailureToWire(frame.step, frame.failed_node, frame.failure, frame.timings);
}

}  // namespace efedllm
