#include "worker/stage_runner.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr absl::Duration kReceiveTimeout = absl::Seconds(1);
// A peer that takes nothing for this long is gone: the coordinator plans without it.
constexpr absl::Duration kSendTimeout = absl::Seconds(30);
constexpr absl::Duration kSendSlice = absl::Milliseconds(100);

}  // namespace

StageRunner::StageRunner(NodeId self, HopReceiver& receiver, FailureCallback on_failure)
    : self_(self), receiver_(receiver), on_failure_(std::move(on_failure)) {
  thread_ = std::thread([this] { Loop(); });
}

StageRunner::~StageRunner() {
  stopping_ = true;
  receiver_.Shutdown();
  thread_.join();
}

void StageRunner::Install(RunningStage stage) {
  absl::MutexLock lock(&mu_);
  {
    absl::MutexLock counters_lock(&counters_mu_);
    counters_ = StageCounters();
    counters_.epoch = stage.epoch;
    counters_.kv_tokens_total = stage.executor->kv_tokens_total();
  }
  last_step_.reset();
  const NodeId upstream = stage.upstream;
  stage_ = std::move(stage);
  receiver_.SetUpstream(upstream);
}

void StageRunner::Drop() {
  ++waiting_to_drop_;
  absl::MutexLock lock(&mu_);
  --waiting_to_drop_;
  DropLocked();
}

void StageRunner::DropLocked() {
  receiver_.SetUpstream(std::nullopt);
  stage_.reset();
  frame_ = StepFrame();
  absl::MutexLock lock(&counters_mu_);
  counters_.epoch = Epoch{0};
  counters_.sequences = 0;
  counters_.kv_tokens_used = 0;
}

StageCounters StageRunner::counters() const {
  absl::MutexLock lock(&counters_mu_);
  return counters_;
}

void StageRunner::Loop() {
  while (!stopping_) {
    const std::optional<HopFrame> frame = receiver_.Next(kReceiveTimeout);
    if (!frame) continue;
    Epoch failed;
    absl::Status status;
    {
      absl::MutexLock lock(&mu_);
      if (!stage_ || frame->peer != stage_->upstream) continue;  // of a stage that was dropped
      failed = stage_->epoch;
      status = OnFrame(*frame);
      if (!status.ok()) DropLocked();
    }
    if (!status.ok() && !stopping_) on_failure_(failed, status);
  }
}

absl::Status StageRunner::OnFrame(const HopFrame& frame) {
  const absl::Status read = StepFromWire(frame.bytes, stage_->limits, stage_->d_model, frame_);
  if (!read.ok()) {
    return absl::Status(read.code(),
                        absl::StrCat("from upstream ", NodeName(frame.peer), ": ", read.message()));
  }
  if (frame_.step.epoch != stage_->epoch) {
    spdlog::debug("dropped step {} of epoch {}; this is epoch {}", frame_.step.id.v,
                  frame_.step.epoch.v, stage_->epoch.v);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(CheckOrder(frame_.step));
  const grpc::ByteBuffer out = RunStep();
  RETURN_IF_ERROR(SendOn(out));
  Count(frame_.failure.ok() ? frame_.step.tokens() : 0, compute_, frame.bytes.Length(),
        out.Length());
  return absl::OkStatus();
}

absl::Status StageRunner::CheckOrder(const Step& step) {
  if (last_step_ && step.id.v != last_step_->v + 1) {
    return absl::InvalidArgumentError(absl::StrCat("from upstream ", NodeName(stage_->upstream),
                                                   ": step ", step.id.v, " came after step ",
                                                   last_step_->v));
  }
  last_step_ = step.id;
  return absl::OkStatus();
}

grpc::ByteBuffer StageRunner::RunStep() {
  const absl::Time start = absl::Now();
  grpc::ByteBuffer out;
  if (frame_.failure.ok()) {
    const absl::Status ran = stage_->executor->Run(frame_.step, frame_.hidden.ref());
    if (!ran.ok()) spdlog::warn("step {}: {}", frame_.step.id.v, std::string(ran.message()));
    out = ran.ok() ? StepToWire(frame_.step, frame_.hidden.ref(), stage_->codec)
                   : StepFailureToWire(frame_.step, self_, ran);
  } else {
    // An earlier stage failed it: only its trims and forks happen here, and the reason is passed
    // on.
    Step rest = frame_.step;
    rest.spans.clear();
    const absl::Status ran = stage_->executor->Run(rest, MatrixRef{nullptr, 0, stage_->d_model});
    if (!ran.ok()) spdlog::warn("trims and forks: {}", std::string(ran.message()));
    out = StepFailureToWire(frame_.step, frame_.failed_node, frame_.failure);
  }
  compute_ = absl::Now() - start;
  return out;
}

absl::Status StageRunner::SendOn(const grpc::ByteBuffer& bytes) {
  const absl::Time deadline = absl::Now() + kSendTimeout;
  while (true) {
    const absl::Status sent = stage_->downstream->Send(bytes, kSendSlice);
    const bool again = absl::IsDeadlineExceeded(sent) && absl::Now() < deadline && !stopping_ &&
                       waiting_to_drop_ == 0;
    if (!again) return sent;
  }
}

void StageRunner::Count(uint64_t tokens, absl::Duration compute, uint64_t bytes_in,
                        uint64_t bytes_out) {
  absl::MutexLock lock(&counters_mu_);
  ++counters_.steps;
  counters_.tokens += tokens;
  counters_.compute_micros += static_cast<uint64_t>(absl::ToInt64Microseconds(compute));
  counters_.bytes_in += bytes_in;
  counters_.bytes_out += bytes_out;
  counters_.sequences = stage_->executor->sequences();
  counters_.kv_tokens_used = stage_->executor->kv_tokens_used();
}

}  // namespace efedllm
