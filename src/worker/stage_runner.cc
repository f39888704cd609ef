#include "worker/stage_runner.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <new>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "cluster/stage_timing.h"
#include "common/status_macros.h"
#include "wire/frame_epoch.h"

namespace efedllm {
namespace {

constexpr int kFrameThreads = 3;
constexpr absl::Duration kReceiveTimeout = absl::Seconds(1);
// A peer that is there, and takes nothing for this long, is of no use: the coordinator plans
// without it.
constexpr absl::Duration kSendTimeout = absl::Seconds(30);
constexpr absl::Duration kSendSlice = absl::Milliseconds(20);
constexpr absl::Duration kSendPatience = absl::Milliseconds(100);
constexpr absl::Duration kWatchInterval = absl::Milliseconds(50);

bool NobodyElseHolds(std::vector<std::shared_ptr<HeldStage>>* stages) {
  return std::all_of(stages->begin(), stages->end(),
                     [](const auto& stage) { return stage.use_count() == 1; });
}

}  // namespace

// A frame's way through its stage, if there is one.
class StageRunner::Visit {
 public:
  Visit(StageRunner& runner, const HopFrame& hop) : runner_(runner) {
    absl::MutexLock lock(&runner_.mu_);
    stage_ = runner_.slots_.StageOf(hop.peer, hop.bytes);
  }
  ~Visit() {
    absl::MutexLock lock(&runner_.mu_);
    stage_ = nullptr;
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

  const std::shared_ptr<HeldStage>& stage() const { return stage_; }

 private:
  StageRunner& runner_;
  std::shared_ptr<HeldStage> stage_;
};

StageRunner::StageRunner(HopReceiver& receiver, const Clock& clock, FailureCallback on_failure)
    : receiver_(receiver), clock_(clock), on_failure_(std::move(on_failure)) {
  for (int i = 0; i < kFrameThreads; ++i) threads_.emplace_back([this] { Loop(); });
  threads_.emplace_back([this] { Watch(); });
}

StageRunner::~StageRunner() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  receiver_.Shutdown();
  for (std::thread& thread : threads_) thread.join();
}

bool StageRunner::CanContinue(const Assignment& assignment) const {
  absl::MutexLock lock(&mu_);
  return slots_.CanContinue(assignment);
}

uint64_t StageRunner::BytesBeside(const Assignment& assignment) const {
  absl::MutexLock lock(&mu_);
  return slots_.BytesBeside(assignment);
}

absl::Status StageRunner::Prepare(std::shared_ptr<HeldStage> stage) {
  absl::MutexLock lock(&mu_);
  if (stage->executor() == nullptr && !slots_.CanContinue(stage->assignment())) {
    return absl::FailedPreconditionError("the KV that the stage goes on with is gone");
  }
  if (slots_.running() == nullptr) CountFrom(stage.get());
  slots_.Prepare(std::move(stage));
  for (auto& ended : slots_.TakeEnded()) ended_.push_back(std::move(ended));
  receiver_.SetUpstreams(slots_.upstreams());
  return absl::OkStatus();
}

void StageRunner::DropAndWait(absl::FunctionRef<void(StageSlots&)> drop) {
  std::vector<std::shared_ptr<HeldStage>> mine;  // let go of without the lock
  absl::MutexLock lock(&mu_);
  drop(slots_);
  mine = slots_.TakeEnded();
  receiver_.SetUpstreams(slots_.upstreams());
  if (slots_.running() == nullptr) CountFrom(slots_.prepared().get());
  mu_.Await(absl::Condition(+NobodyElseHolds, &mine));
}

void StageRunner::DropPrepared() {
  DropAndWait([](StageSlots& slots) { slots.DropPrepared(); });
}

std::optional<Epoch> StageRunner::DropRunning() {
  std::optional<Epoch> epoch;
  DropAndWait([&](StageSlots& slots) {
    if (slots.running() != nullptr && slots.running()->running()) {
      epoch = slots.running()->epoch();
    }
    slots.DropRunning();
  });
  return epoch;
}

void StageRunner::Release() {
  DropAndWait([](StageSlots& slots) { slots.Release(); });
}

absl::StatusOr<std::vector<KvExtent>> StageRunner::Halt(Epoch epoch) {
  {
    absl::MutexLock lock(&mu_);
    if (slots_.running() == nullptr || slots_.running()->epoch() != epoch) {
      return absl::NotFoundError(absl::StrCat("no stage of epoch ", epoch.v, " runs here"));
    }
    slots_.Halt(*slots_.running());
  }
  absl::MutexLock step_under_way(&compute_);
  absl::MutexLock lock(&mu_);
  if (slots_.running() == nullptr || slots_.running()->epoch() != epoch) {
    return absl::NotFoundError(absl::StrCat("the stage of epoch ", epoch.v, " has ended"));
  }
  return slots_.running()->executor()->extents();
}

absl::StatusOr<grpc::ByteBuffer> StageRunner::Export(Epoch epoch, Epoch next_epoch,
                                                     const KvExtent& extent,
                                                     uint32_t& first) const {
  absl::MutexLock lock(&mu_);
  return slots_.Export(epoch, next_epoch, extent, first);
}

absl::Status StageRunner::Import(const grpc::ByteBuffer& frame) {
  absl::MutexLock lock(&mu_);
  return slots_.Import(frame);
}

absl::Status StageRunner::FinishImport(Epoch epoch) {
  absl::MutexLock lock(&mu_);
  return slots_.FinishImport(epoch);
}

void StageRunner::Fail(const std::shared_ptr<HeldStage>& stage, const absl::Status& why,
                       StageFault fault) {
  {
    absl::MutexLock lock(&mu_);
    if (stopping_ || !slots_.Halt(*stage)) return;  // ended already: then that is why
    if (slots_.running() == stage) CountFrom(nullptr);
    for (auto& ended : slots_.TakeEnded()) ended_.push_back(std::move(ended));
  }
  on_failure_(stage->epoch(), why, fault);
}

StageCounters StageRunner::counters() const {
  absl::MutexLock lock(&counters_mu_);
  return counters_;
}

void StageRunner::CountFrom(HeldStage* stage) {
  absl::MutexLock lock(&counters_mu_);
  if (stage == nullptr) {
    counters_.epoch = Epoch{0};
    counters_.sequences = 0;
    counters_.kv_tokens_used = 0;
    return;
  }
  counters_ = StageCounters();
  counters_.epoch = stage->epoch();
  counters_.kv_tokens_total = stage->executor()->kv_tokens_total();
}

void StageRunner::Count(const HopFrame& in, const grpc::ByteBuffer& out, const PassingFrame& pass,
                        uint64_t sequences, uint64_t kv_tokens_used) {
  absl::MutexLock lock(&counters_mu_);
  if (counters_.epoch != pass.frame.step.epoch) return;  // it has ended meanwhile
  ++counters_.steps;
  if (pass.frame.failure.ok()) counters_.tokens += pass.frame.step.tokens();
  counters_.compute_micros += TimingMicros(pass.computed - pass.computing);
  counters_.bytes_in += in.bytes.Length();
  counters_.bytes_out += out.Length();
  counters_.sequences = sequences;
  counters_.kv_tokens_used = kv_tokens_used;
}

void StageRunner::Loop() {
  PassingFrame pass;  // its memory is reused from step to step
  while (!stopping_) PassFrame(pass);
}

absl::Status StageRunner::ReadAndEnter(const HopFrame& hop, const std::shared_ptr<HeldStage>& stage,
                                       PassingFrame& pass) {
  RETURN_IF_ERROR(stage->Read(hop, pass));
  absl::MutexLock lock(&mu_);
  const bool first = stage == slots_.prepared();
  if (!slots_.Enter(stage)) return absl::CancelledError("the stage has ended");
  if (!first) return absl::OkStatus();
  spdlog::info("epoch {}: its first step is here", stage->epoch().v);
  for (auto& ended : slots_.TakeEnded()) ended_.push_back(std::move(ended));
  receiver_.SetUpstreams(slots_.upstreams());
  CountFrom(stage.get());
  return absl::OkStatus();
}

// One frame, from its receipt until the transport has it.
void StageRunner::PassFrame(PassingFrame& pass) {
  absl::ReleasableMutexLock intake(&intake_);
  const std::optional<HopFrame> hop = receiver_.Next(kReceiveTimeout);
  if (!hop) return;
  const Visit visit(*this, *hop);
  const std::shared_ptr<HeldStage>& stage = visit.stage();
  if (!stage) return;  // of an epoch that ended
  try {
    {
      absl::MutexLock lock(&watch_mu_);
      watch_.Received(clock_.Now());
    }
    const absl::Status read = ReadAndEnter(*hop, stage, pass);
    if (absl::IsCancelled(read)) return;
    if (!read.ok()) return Fail(stage, read, StageFault::kUpstream);

    absl::ReleasableMutexLock compute(&compute_);
    intake.Release();
    if (!stage->running()) return;
    const absl::Status computed = stage->Compute(pass);
    if (!computed.ok()) return Fail(stage, computed, StageFault::kUpstream);
    const uint64_t sequences = stage->executor()->sequences();
    const uint64_t kv_tokens_used = stage->executor()->kv_tokens_used();

    absl::MutexLock send(&send_);
    compute.Release();
    if (!stage->running()) return;
    const grpc::ByteBuffer out = stage->Write(pass);
    const absl::Status sent = Send(*stage, out);
    stage->TellReceipts(pass);  // while the next stage computes
    if (!sent.ok()) return Fail(stage, sent, StageFault::kDownstream);
    Count(*hop, out, pass, sequences, kv_tokens_used);
  } catch (const std::bad_alloc&) {
    Fail(stage, absl::ResourceExhaustedError("out of memory in a step"), StageFault::kSelf);
  }
}

// Frames that can't be sent hold up those of the next epoch, which the coordinator has turned to.
bool StageRunner::NextEpochHasBegun(const HeldStage& stage) {
  absl::MutexLock lock(&mu_);
  const std::shared_ptr<HeldStage>& next = slots_.prepared();
  if (next == nullptr) return false;
  const bool begun = receiver_.Waits([&](const HopFrame& hop) {
    return hop.peer == next->upstream() && FrameEpoch(hop.bytes) == next->epoch();
  });
  if (begun) slots_.Halt(stage);
  return begun;
}

absl::Status StageRunner::Send(HeldStage& stage, const grpc::ByteBuffer& bytes) {
  const absl::Time start = clock_.Now();
  {
    absl::MutexLock lock(&watch_mu_);
    watch_.Sending(bytes.Length(), start);
  }
  const absl::Cleanup sent = [this] {
    absl::MutexLock lock(&watch_mu_);
    watch_.Sent(clock_.Now());
  };
  while (true) {
    const absl::Status status = stage.downstream().Send(bytes, kSendSlice);
    const bool again = absl::IsDeadlineExceeded(status) && clock_.Now() - start < kSendTimeout &&
                       !stopping_ && stage.running();
    if (!again) return status;
    if (clock_.Now() - start > kSendPatience && NextEpochHasBegun(stage)) return status;
  }
}

void StageRunner::Watch() {
  while (true) {
    {
      absl::MutexLock lock(&mu_);
      const auto stopping = [](std::atomic<bool>* flag) { return flag->load(); };
      if (mu_.AwaitWithTimeout(absl::Condition(+stopping, &stopping_), kWatchInterval)) return;
    }
    AskDownstream();
    LetGo();
  }
}

void StageRunner::AskDownstream() {
  std::optional<absl::Duration> patience;
  {
    absl::MutexLock lock(&watch_mu_);
    patience = watch_.Ask(clock_.Now());
  }
  if (!patience) return;
  std::shared_ptr<HeldStage> stage;
  {
    absl::MutexLock lock(&mu_);
    if (slots_.running() == nullptr || !slots_.running()->running()) return;
    stage = slots_.running();
  }
  const absl::Status answer = stage->downstream().Echo(*patience);
  if (!answer.ok()) Fail(stage, answer, StageFault::kDownstream);
  absl::MutexLock lock(&mu_);
  stage = nullptr;
}

// What closing an edge waits for is waited for here, where no frame is held up.
void StageRunner::LetGo() {
  std::vector<std::shared_ptr<HeldStage>> free;
  absl::MutexLock lock(&mu_);
  const auto held = std::partition(ended_.begin(), ended_.end(),
                                   [](const auto& stage) { return stage.use_count() > 1; });
  free.assign(std::make_move_iterator(held), std::make_move_iterator(ended_.end()));
  ended_.erase(held, ended_.end());
}

}  // namespace efedllm
