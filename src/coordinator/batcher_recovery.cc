// How a chain's sequences get from one epoch into the next: what the nodes hold of them for sure,
// and replays for the stages that hold nothing.
#include <algorithm>
#include <utility>

#include "coordinator/batcher.h"

namespace efedllm {
namespace {

constexpr uint32_t kReplayRows = 128;  // in a step

}  // namespace

std::vector<Batcher::Carried> Batcher::TakeCarried() {
  std::vector<Carried> carried;
  for (const Running& running : running_) {
    uint32_t confirmed = std::min(running.sequence->submitted(), running.sequence->known() - 1);
    for (const StepInFlight& step : in_flight_) {
      for (const Part& part : step.parts) {
        if (part.span.sequence != running.lease.id()) continue;
        confirmed = std::min(confirmed, part.span.first_position);
      }
    }
    // A prefix that it takes over came with its first step.
    const bool sure = running.lease.begun() && confirmed > running.lease.cached();
    carried.push_back({running.sequence, running.lease.id(), sure ? confirmed : 0});
  }
  running_.clear();
  in_flight_.clear();
  return carried;
}

std::vector<std::shared_ptr<Sequence>> Batcher::Adopt(std::vector<Carried> carried) {
  std::vector<std::shared_ptr<Sequence>> left;
  for (Carried& one : carried) {
    Running running;
    const bool adopted =
        one.confirmed > 0 && CanHold(*one.sequence) &&
        kv_.Adopt(one.id, one.confirmed, one.sequence->shares_prefix(), running.lease);
    if (!adopted) {
      left.push_back(std::move(one.sequence));
      continue;
    }
    kv_.TrimTo(running.lease, one.confirmed);
    running.held = one.confirmed;
    one.sequence->Restart(options_.capacity.continues->lost.empty() ? one.confirmed : 0);
    running.sequence = std::move(one.sequence);
    running_.push_back(std::move(running));
  }
  return left;
}

bool Batcher::IsReplaying() const {
  return std::any_of(running_.begin(), running_.end(), [](const Running& running) {
    return running.sequence->submitted() < running.held;
  });
}

// First what the nodes shall hold and nothing else; then spans for the stages that lost their KV.
const Batcher::StepInFlight* Batcher::NextRecovery(StepId id, absl::Time now) {
  StepInFlight next;
  next.step.epoch = options_.epoch;
  next.step.id = id;
  next.submitted_at = now;
  if (std::exchange(forget_others_, false)) {
    next.step.forget_others = true;
    next.step.trims = kv_.TakeTrims(options_.limits.max_trims);
  } else {
    next.step.replay_stages = options_.capacity.continues->lost;
    TakeReplays(next);
  }
  in_flight_.push_back(std::move(next));
  return &in_flight_.back();
}

void Batcher::TakeReplays(StepInFlight& next) {
  uint32_t room = std::min({kReplayRows, options_.max_step_tokens, options_.limits.max_tokens});
  for (const Running& running : running_) {
    Sequence& sequence = *running.sequence;
    if (room == 0 || next.step.spans.size() == options_.limits.max_spans) return;
    if (sequence.submitted() >= running.held) continue;
    const uint32_t tokens = std::min(room, running.held - sequence.submitted());
    const SequenceSpan span{running.lease.id(), sequence.submitted(), tokens};
    sequence.MarkSubmitted(tokens);
    next.step.spans.push_back(span);
    next.parts.push_back({running.sequence, span});
    room -= tokens;
  }
}

}  // namespace efedllm
