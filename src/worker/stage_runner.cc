#include "worker/stage_runner.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/stage_timing.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr int kThreads = 3;
constexpr absl::Duration kReceiveTimeout = absl::Seconds(1);
// A peer that takes nothing for this long is gone: the coordinator plans without it.
constexpr absl::Duration kSendTimeout = absl::Seconds(30);
constexpr absl::Duration kSendSlice = absl::Milliseconds(100);

}  // namespace

struct StageRunner::Stage {
  explicit Stage(RunningStage parts) : parts(std::move(parts)) {}

  const RunningStage parts;
  std::optional<StepId> last_step;   // guarded by intake_
  int frames = 0;                    // that are on their way through it; guarded by mu_
  std::atomic<bool> dropped{false};  // set under mu_
};

// A frame's way through the present stage, if there is one and the frame is for it.
class StageRunner::Visit {
 public:
  Visit(StageRunner& runner, NodeId from) : runner_(runner) {
    absl::MutexLock lock(&runner_.mu_);
    if (!runner_.stage_ || runner_.stage_->parts.upstream != from) return;
    stage_ = runner_.stage_;
    ++stage_->frames;
  }
  ~Visit() {
    if (!stage_) return;
    absl::MutexLock lock(&runner_.mu_);
    --stage_->frames;
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

  const std::shared_ptr<Stage>& stage() const { return stage_; }

 private:
  StageRunner& runner_;
  std::shared_ptr<Stage> stage_;
};

struct StageRunner::Moments {
  absl::Time received;
  absl::Time decoding, decoded;
  absl::Time computing, computed;
  absl::Time encoding;

  // Of a frame that is encoded, and about to be sent.
  StageTiming Until(absl::Time encoded, NodeId node) const {
    StageTiming timing;
    timing.node = node;
    timing.received_micros = absl::ToUnixMicros(received);
    timing.decode_micros = TimingMicros(decoded - decoding);
    timing.compute_micros = TimingMicros(computed - computing);
    timing.encode_micros = TimingMicros(encoded - encoding);
    timing.queue_micros =
        TimingMicros((decoding - received) + (computing - decoded) + (encoding - computed));
    return timing;
  }
};

StageRunner::StageRunner(NodeId self, HopReceiver& receiver, FailureCallback on_failure)
    : self_(self), receiver_(receiver), on_failure_(std::move(on_failure)) {
  for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Loop(); });
}

StageRunner::~StageRunner() {
  stopping_ = true;
  receiver_.Shutdown();
  for (std::thread& thread : threads_) thread.join();
}

void StageRunner::Install(RunningStage stage) {
  absl::MutexLock lock(&mu_);
  {
    absl::MutexLock counters_lock(&counters_mu_);
    counters_ = StageCounters();
    counters_.epoch = stage.epoch;
    counters_.kv_tokens_total = stage.executor->kv_tokens_total();
  }
  const NodeId upstream = stage.upstream;
  stage_ = std::make_shared<Stage>(std::move(stage));
  receiver_.SetUpstream(upstream);
}

void StageRunner::Drop() {
  absl::MutexLock lock(&mu_);
  DropLocked();
}

void StageRunner::DropLocked() {
  const std::shared_ptr<Stage> stage = std::move(stage_);
  stage_ = nullptr;
  if (!stage) return;
  receiver_.SetUpstream(std::nullopt);
  stage->dropped = true;
  const auto empty = [](Stage* left) { return left->frames == 0; };
  mu_.Await(absl::Condition(+empty, stage.get()));
  absl::MutexLock lock(&counters_mu_);
  counters_.epoch = Epoch{0};
  counters_.sequences = 0;
  counters_.kv_tokens_used = 0;
}

void StageRunner::Fail(const std::shared_ptr<Stage>& stage, const absl::Status& why) {
  {
    absl::MutexLock lock(&mu_);
    if (stage != stage_) return;  // dropped already: then that is why
    DropLocked();
  }
  if (!stopping_) on_failure_(stage->parts.epoch, why);
}

StageCounters StageRunner::counters() const {
  absl::MutexLock lock(&counters_mu_);
  return counters_;
}

void StageRunner::Loop() {
  StepFrame frame;  // its memory is reused from step to step
  while (!stopping_) {
    std::shared_ptr<Stage> stage;
    const absl::Status status = PassFrame(frame, stage);
    if (!status.ok()) Fail(stage, status);
  }
}

// One frame, from its receipt until the transport has it.
absl::Status StageRunner::PassFrame(StepFrame& frame, std::shared_ptr<Stage>& stage) {
  absl::ReleasableMutexLock intake(&intake_);
  const std::optional<HopFrame> hop = receiver_.Next(kReceiveTimeout);
  if (!hop) return absl::OkStatus();
  const Visit visit(*this, hop->peer);
  stage = visit.stage();
  if (!stage) return absl::OkStatus();  // of a stage that was dropped
  Moments moments;
  moments.received = hop->received;
  moments.decoding = absl::Now();
  RETURN_IF_ERROR(Read(*hop, *stage, frame));
  if (frame.step.epoch != stage->parts.epoch) return absl::OkStatus();
  moments.decoded = absl::Now();

  absl::ReleasableMutexLock compute(&compute_);
  intake.Release();
  if (stage->dropped) return absl::OkStatus();
  moments.computing = absl::Now();
  Compute(*stage, frame);
  moments.computed = absl::Now();
  const uint64_t sequences = stage->parts.executor->sequences();
  const uint64_t kv_tokens_used = stage->parts.executor->kv_tokens_used();

  absl::MutexLock send(&send_);
  compute.Release();
  if (stage->dropped) return absl::OkStatus();
  const grpc::ByteBuffer out = Write(*stage, moments, frame);
  RETURN_IF_ERROR(Send(*stage, out));
  absl::MutexLock lock(&counters_mu_);
  ++counters_.steps;
  if (frame.failure.ok()) counters_.tokens += frame.step.tokens();
  counters_.compute_micros += TimingMicros(moments.computed - moments.computing);
  counters_.bytes_in += hop->bytes.Length();
  counters_.bytes_out += out.Length();
  counters_.sequences = sequences;
  counters_.kv_tokens_used = kv_tokens_used;
  return absl::OkStatus();
}

absl::Status StageRunner::Read(const HopFrame& hop, Stage& stage, StepFrame& frame) {
  const absl::Status read = StepFromWire(hop.bytes, stage.parts.limits, stage.parts.d_model, frame);
  if (!read.ok()) {
    return absl::Status(read.code(),
                        absl::StrCat("from upstream ", NodeName(hop.peer), ": ", read.message()));
  }
  const Step& step = frame.step;
  if (step.epoch != stage.parts.epoch) {
    spdlog::debug("dropped step {} of epoch {}; this is epoch {}", step.id.v, step.epoch.v,
                  stage.parts.epoch.v);
    return absl::OkStatus();
  }
  if (stage.last_step && step.id.v != stage.last_step->v + 1) {
    return absl::InvalidArgumentError(absl::StrCat("from upstream ", NodeName(hop.peer), ": step ",
                                                   step.id.v, " came after step ",
                                                   stage.last_step->v));
  }
  stage.last_step = step.id;
  return absl::OkStatus();
}

void StageRunner::Compute(Stage& stage, StepFrame& frame) {
  StageExecutor& executor = *stage.parts.executor;
  if (frame.failure.ok()) {
    frame.failure = executor.Run(frame.step, frame.hidden.ref());
    if (frame.failure.ok()) return;
    frame.failed_node = self_;
    spdlog::warn("step {}: {}", frame.step.id.v, std::string(frame.failure.message()));
    return;
  }
  // An earlier stage failed it: only its trims and forks happen here, and the reason is passed on.
  Step rest = frame.step;
  rest.spans.clear();
  const absl::Status ran = executor.Run(rest, MatrixRef{nullptr, 0, stage.parts.d_model});
  if (!ran.ok()) spdlog::warn("trims and forks: {}", std::string(ran.message()));
}

grpc::ByteBuffer StageRunner::Write(const Stage& stage, Moments& moments, StepFrame& frame) const {
  moments.encoding = absl::Now();
  std::string activations;
  if (frame.failure.ok()) {
    activations.reserve(
        MaxEncodedBytes(stage.parts.codec, frame.hidden.rows(), frame.hidden.cols()));
    EncodeActivations(stage.parts.codec, frame.hidden.ref(), activations);
  }
  if (frame.timings.size() < kMaxStages) {
    frame.timings.push_back(moments.Until(absl::Now(), self_));
  }
  return frame.failure.ok()
             ? EncodedStepToWire(frame.step, std::move(activations), stage.parts.codec,
                                 frame.timings)
             : StepFailureToWire(frame.step, frame.failed_node, frame.failure, frame.timings);
}

absl::Status StageRunner::Send(Stage& stage, const grpc::ByteBuffer& bytes) {
  const absl::Time deadline = absl::Now() + kSendTimeout;
  while (true) {
    const absl::Status sent = stage.parts.downstream->Send(bytes, kSendSlice);
    const bool again =
        absl::IsDeadlineExceeded(sent) && absl::Now() < deadline && !stopping_ && !stage.dropped;
    if (!again) return sent;
  }
}

}  // namespace efedllm
