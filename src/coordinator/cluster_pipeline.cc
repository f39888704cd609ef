#include "coordinator/cluster_pipeline.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

// How soon a wait for frames notices that the epoch has ended.
constexpr absl::Duration kSlice = absl::Milliseconds(20);
// Measured step times vary with load; only what is far beyond them is a fault.
constexpr int kDeadlineFactor = 20;
// No request has it: sequence numbers count up from one.
constexpr SequenceId kProbeSequence{std::numeric_limits<uint64_t>::max()};

}  // namespace

ClusterPipeline::ClusterPipeline(const ClusterPipelineOptions& options,
                                 std::unique_ptr<HopSender> first, HopInbox& inbox)
    : options_(options), first_(std::move(first)), inbox_(inbox) {
  // The last epoch's may still be asking; when this has the lock, it never asks again.
  absl::MutexLock lock(&inbox_.mu);
}

absl::StatusOr<PipelineCapacity> ClusterPipeline::Capacity() const {
  RETURN_IF_ERROR(ended());
  return options_.capacity;
}

absl::Status ClusterPipeline::ended() const {
  absl::MutexLock lock(&mu_);
  return ended_;
}

void ClusterPipeline::End(const absl::Status& why) {
  {
    absl::MutexLock lock(&mu_);
    if (!ended_.ok()) return;
    ended_ = absl::UnavailableError(why.message());
  }
  if (options_.on_end) options_.on_end(why);
}

absl::Duration ClusterPipeline::Deadline(size_t tokens) const {
  return options_.least_deadline + kDeadlineFactor * options_.estimate(tokens);
}

absl::Status ClusterPipeline::Submit(Step step, size_t /*chain*/, Matrix hidden) {
  const Epoch epoch = options_.capacity.epoch;
  if (step.epoch != epoch) {
    return absl::AbortedError(absl::StrCat("the present epoch is ", epoch.v));
  }
  absl::Duration deadline;
  {
    absl::MutexLock lock(&mu_);
    if (!ended_.ok()) return absl::AbortedError(ended_.message());
    if (in_flight_.size() >= MaxStepsInFlight(options_.capacity.chains[0])) {
      return absl::ResourceExhaustedError("too many steps in flight");
    }
    const StepId id = step.id;
    step.id = StepId{next_step_++};
    tokens_in_flight_ += step.tokens();
    deadline = Deadline(tokens_in_flight_);
    in_flight_.push_back({step, id, absl::Now() + deadline});
  }
  const absl::Status sent = first_->Send(StepToWire(step, hidden.ref(), options_.codec), deadline);
  // The step stands in flight already, so it yields its result through NextResult.
  if (!sent.ok()) {
    End(absl::UnavailableError(absl::StrCat("the hop to the first stage broke: ", sent.message())));
  }
  return absl::OkStatus();
}

std::optional<HopFrame> ClusterPipeline::Receive(absl::Time until) {
  absl::MutexLock lock(&inbox_.mu);
  if (!ended().ok()) return std::nullopt;  // what comes now is the next epoch's
  return inbox_.receiver.Next(std::clamp(until - absl::Now(), absl::ZeroDuration(), kSlice));
}

std::optional<StepResult> ClusterPipeline::Accept(const HopFrame& hop) {
  const Epoch epoch = options_.capacity.epoch;
  if (hop.peer != options_.last_node) return std::nullopt;
  const absl::Status read =
      StepFromWire(hop.bytes, options_.capacity.limits, options_.d_model, frame_);
  if (!read.ok()) {
    End(absl::UnavailableError(
        absl::StrCat("node ", NodeName(hop.peer), " sent a malformed result: ", read.message())));
    return std::nullopt;
  }
  if (frame_.step.epoch != epoch) return std::nullopt;  // of an epoch that is over
  {
    absl::MutexLock lock(&mu_);
    if (!ended_.ok()) return std::nullopt;
    if (!in_flight_.empty() && frame_.step.id == in_flight_.front().step.id &&
        frame_.step.spans == in_flight_.front().step.spans) {
      StepResult result;
      result.epoch = epoch;
      result.id = in_flight_.front().id;
      result.status = std::move(frame_.failure);
      if (result.status.ok()) result.hidden = std::move(frame_.hidden);
      result.timings = std::move(frame_.timings);
      frame_ = StepFrame();
      tokens_in_flight_ -= in_flight_.front().step.tokens();
      in_flight_.pop_front();
      return result;
    }
  }
  End(absl::UnavailableError(
      absl::StrCat("node ", NodeName(hop.peer), " sent a result that nobody waits for")));
  return std::nullopt;
}

std::optional<StepResult> ClusterPipeline::TakeLost() {
  if (in_flight_.empty()) return std::nullopt;
  StepResult result;
  result.epoch = options_.capacity.epoch;
  result.id = in_flight_.front().id;
  result.status = ended_;
  in_flight_.pop_front();
  return result;
}

std::optional<StepResult> ClusterPipeline::NextResult(absl::Duration timeout) {
  const absl::Time until = absl::Now() + timeout;
  do {
    bool late = false;
    {
      absl::MutexLock lock(&mu_);
      if (!ended_.ok() && !in_flight_.empty()) return TakeLost();
      if (in_flight_.empty()) {
        // Nothing to wait for, but the caller must not spin.
        mu_.AwaitWithDeadline(absl::Condition(this, &ClusterPipeline::HasSteps), until);
        return std::nullopt;
      }
      late = absl::Now() > in_flight_.front().due;
    }
    if (late) {
      End(absl::UnavailableError("a step took far longer than the nodes' speed explains"));
      continue;
    }
    const std::optional<HopFrame> hop = Receive(until);
    if (!hop) continue;
    std::optional<StepResult> result = Accept(*hop);
    if (result) return result;
  } while (absl::Now() < until);
  return std::nullopt;
}

absl::Status ClusterPipeline::Probe(absl::Duration timeout) {
  const absl::Time until = absl::Now() + timeout;
  Step step;
  step.epoch = options_.capacity.epoch;
  step.spans.push_back({kProbeSequence, 0, 1});
  Matrix hidden(1, options_.d_model);
  for (size_t i = 0; i < options_.d_model; ++i) {
    hidden.row(0)[i] = static_cast<float>(static_cast<int>(i % 17) - 8) / 8;
  }
  Step release;
  release.epoch = step.epoch;
  release.trims.push_back({kProbeSequence, 0});
  RETURN_IF_ERROR(Submit(std::move(step), 0, std::move(hidden)));
  RETURN_IF_ERROR(Submit(std::move(release), 0, Matrix(0, options_.d_model)));
  for (int i = 0; i < 2; ++i) {
    const std::optional<StepResult> result = NextResult(until - absl::Now());
    if (!result) return absl::UnavailableError("the first step came not back in time");
    RETURN_IF_ERROR(result->status);
  }
  return absl::OkStatus();
}

}  // namespace efedllm
