// From one epoch to the next: what runs is carried over, and goes on with the KV that is left of
// it.
#include <algorithm>
#include <utility>

#include "coordinator/serving_loop.h"
#include "spdlog/spdlog.h"

namespace efedllm {

absl::Status ServingLoop::FollowEpoch() {
  absl::StatusOr<PipelineCapacity> capacity = pipeline_.Capacity();
  if (capacity.ok() && over_ == capacity->epoch) {
    capacity = absl::UnavailableError("a worker was lost; planning anew");
  }
  if (serving()) {
    if (capacity.ok() && capacity->epoch == capacity_->epoch) return absl::OkStatus();
    EndEpoch(capacity.ok() ? absl::AbortedError("a new epoch began") : capacity.status());
  }
  if (capacity.ok()) BeginEpoch(*capacity);
  return capacity.status();
}

void ServingLoop::BeginEpoch(const PipelineCapacity& capacity) {
  capacity_ = capacity;
  last_step_ = 0;
  auto carried = std::exchange(carried_, {});
  for (size_t i = 0; i < capacity.chains.size(); ++i) {
    const ChainCapacity& chain = capacity.chains[i];
    const BatcherOptions options{
        capacity.epoch, i, chain, capacity.limits, limits_.max_sequences, limits_.max_step_tokens};
    chains_.push_back(std::make_unique<Batcher>(options, sequence_ids_));
    if (!chain.continues || over_ != chain.continues->epoch) continue;
    if (chain.continues->chain >= carried.size()) continue;
    const bool computes = !chain.continues->lost.empty();
    auto& sequences = carried[chain.continues->chain];
    for (const Batcher::Carried& one : sequences) {
      auto& tokens = computes ? metrics_.replayed_by_stages : metrics_.kept_tokens;
      tokens.Increment(one.confirmed);
    }
    Requeue(chains_.back()->Adopt(std::move(sequences)));
    sequences.clear();
  }
  over_.reset();
  for (auto& sequences : carried) {
    std::vector<std::shared_ptr<Sequence>> from_tokens;
    from_tokens.reserve(sequences.size());
    for (Batcher::Carried& one : sequences) from_tokens.push_back(std::move(one.sequence));
    Requeue(std::move(from_tokens));
  }
}

void ServingLoop::Requeue(std::vector<std::shared_ptr<Sequence>> sequences) {
  for (auto& sequence : sequences) {
    metrics_.replayed_from_tokens.Increment(sequence->submitted());
    sequence->Restart(0);
    waiting_.Push(std::move(sequence));
  }
}

void ServingLoop::EndEpoch(const absl::Status& why) {
  over_ = capacity_->epoch;
  size_t begun = 0;
  for (const auto& chain : chains_) {
    std::vector<Batcher::Carried>& sequences = carried_.emplace_back(chain->TakeCarried());
    for (const Batcher::Carried& one : sequences) begun += one.sequence->submitted() > 0;
  }
  chains_.clear();
  capacity_.reset();
  counts_.replays += begun;
  metrics_.replays.Increment(static_cast<double>(begun));
  if (begun > 0) paused_since_ = clock_.Now();
  spdlog::log(begun > 0 ? spdlog::level::warn : spdlog::level::info,
              "epoch {} is over, {} sequences wait for the next: {}", over_->v, begun,
              std::string(why.message()));
}

// A step of the new epoch brought tokens.
void ServingLoop::EndPause() {
  if (!paused_since_) return;
  metrics_.failovers.Increment();
  metrics_.failover_seconds.Observe(absl::ToDoubleSeconds(clock_.Now() - *paused_since_));
  paused_since_.reset();
}

}  // namespace efedllm
