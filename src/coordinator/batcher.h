// One chain's state and decisions: who runs on it, what of its KV memory is whose, which steps are
// in flight. The scheduler's thread owns it; nothing in here waits.
#ifndef EFEDLLM_COORDINATOR_BATCHER_H_
#define EFEDLLM_COORDINATOR_BATCHER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cluster/stage_times.h"
#include "cluster/step.h"
#include "cluster/step_planner.h"
#include "common/ids.h"
#include "coordinator/pipeline.h"
#include "coordinator/prefix_cache.h"
#include "coordinator/sequence.h"

namespace efedllm {

struct BatcherOptions {
  Epoch epoch;
  size_t chain = 0;
  ChainCapacity capacity;
  StepLimits limits;
  size_t max_sequences = 16;       // that run at once
  uint32_t max_step_tokens = 256;  // rows in a step
};

// Not thread-safe. Lives as long as its epoch.
class Batcher {
 public:
  // A sequence's part in a step.
  struct Part {
    std::shared_ptr<Sequence> sequence;
    SequenceSpan span;
  };
  struct StepInFlight {
    Step step;
    std::vector<Part> parts;  // in the order of step.spans
    absl::Time submitted_at;

    std::vector<int32_t> Tokens() const;  // row by row
  };

  // ids: of all epochs and chains; borrowed.
  Batcher(const BatcherOptions& options, SequenceIds& ids);

  // Would it fit, if it were alone?
  bool CanHold(const Sequence& sequence) const;
  // Could it run now, beside what runs: is there a place, and KV memory for what is
  // known of it?
  bool Fits(const Sequence& sequence) const;
  // How much of it is in the prefix cache.
  PrefixCache::Known Known(const Sequence& sequence) const {
    return sequence.shares_prefix() ? kv_.Look(sequence.tokens()) : PrefixCache::Known();
  }
  void Admit(std::shared_ptr<Sequence> sequence);
  // Takes the least important of those that run, if it is less important than this priority: it
  // waits again. nullptr: there is none.
  std::shared_ptr<Sequence> Preempt(int priority);
  // Those that had to make room for others when KV memory ran out, since the last call.
  std::vector<std::shared_ptr<Sequence>> TakePreempted();
  // Takes out the running sequences for which this holds; their KV goes with the next step.
  std::vector<std::shared_ptr<Sequence>> Take(const std::function<bool(const Sequence&)>& which);
  // All that runs, to be replayed: the nodes' KV can't be relied on.
  std::vector<std::shared_ptr<Sequence>> TakeAll();

  // A sequence between two epochs: what the nodes hold of it for sure.
  struct Carried {
    std::shared_ptr<Sequence> sequence;
    SequenceId id;           // its name on the nodes
    uint32_t confirmed = 0;  // positions whose steps came back; 0: nothing is sure
  };
  // All that runs when the epoch is over, the more important first.
  std::vector<Carried> TakeCarried();
  // Before the first step, where the chain continues another: these go on with the KV that the
  // nodes have; where stages lost it, replays bring it back first. Returns for whom there is no
  // room.
  std::vector<std::shared_ptr<Sequence>> Adopt(std::vector<Carried> carried);

  // Sequences whose next tokens the next step will compute: now they may get drafts.
  struct Decodes {
    std::vector<Sequence*> sequences;
    uint32_t room = 0;  // rows that drafts may add to the step
    // What a step with so many rows of decodes costs: seconds until all sequences had such a one.
    // 0: nothing was measured yet.
    std::function<double(uint32_t rows)> seconds;
  };
  using DraftCallback = std::function<void(const Decodes& decodes)>;
  // The next step, if one should be submitted now; it counts as in flight at once. id: a new one.
  // nullptr: nothing to do, or all stages are busy. Borrowed until the next call.
  const StepInFlight* NextStep(StepId id, absl::Time now, const DraftCallback& draft);
  // The step with that number, now out of flight. nullopt: none of this chain.
  std::optional<StepInFlight> Finish(StepId id);
  // Does its sequence still run, with the KV that this part was computed with?
  bool IsCurrent(const Part& part) const;
  // What a step took. It came back after round_trip.
  void Observe(const StepInFlight& step, absl::Span<const StageTiming> timings,
               absl::Duration round_trip);
  void ObserveHead(uint32_t rows, absl::Duration time) { times_.ObserveHead(rows, time); }
  // After a step's logits were taken: finished sequences leave.
  void Retire(const StepInFlight& step);
  // A step failed, and what the nodes hold is not sure any more: nothing cached is used again, and
  // what the step was to make them forget is said once more.
  void ForgetCached(const StepInFlight& failed) { kv_.Clear(failed.step.trims); }

  const BatcherOptions& options() const { return options_; }
  const ChainTimes& times() const { return times_; }
  size_t running() const { return running_.size(); }
  bool Runs(const std::string& owner) const;
  size_t in_flight() const { return in_flight_.size(); }
  // Would another step fit into the stages, if there were work for it?
  bool has_idle_stage() const { return in_flight_.size() < shape_.in_flight; }
  // That hold KV on the nodes, without those that only the cache remembers.
  size_t holding_kv() const { return running_.size() + kv_.pending_trims(); }
  const PrefixCache& kv() const { return kv_; }

 private:
  struct Running {
    std::shared_ptr<Sequence> sequence;
    PrefixCache::Lease lease;
    uint32_t held = 0;  // positions that only the chain's lost stages have to compute
  };

  StepRules Rules() const;
  // Makes room for a span, if need be by preempting others that are not in this step. False: it
  // waits, or had to go itself.
  bool MakeRoom(Sequence& sequence, uint32_t length, const StepInFlight& next);
  void Stop(size_t running);
  bool WaitsForPrefix(size_t running) const;
  std::vector<SequenceWork> Work();
  bool IsReplaying() const;
  const StepInFlight* NextRecovery(StepId id, absl::Time now);
  void TakeReplays(StepInFlight& next);
  void Draft(std::vector<SequenceWork>& work, const DraftCallback& draft);
  void TakeSpans(absl::Span<const SequenceWork> work, StepInFlight& next);
  bool TakeSpan(const std::shared_ptr<Sequence>& sequence, uint32_t tokens, StepInFlight& next);
  std::vector<Running>::iterator Find(const Sequence& sequence);
  bool IsIn(const StepInFlight& step, const Sequence& sequence) const;
  absl::Span<const int32_t> Computed(const Sequence& sequence) const;

  const BatcherOptions options_;
  PrefixCache kv_;
  ChainTimes times_;
  StepShape shape_;
  std::vector<Running> running_;  // the more important first, then in the order of arrival
  std::vector<std::shared_ptr<Sequence>> preempted_;
  // No step was made yet: the first one says which sequences the nodes shall hold. They may have KV
  // of epochs that this one does not go on with.
  bool forget_others_ = true;
  std::deque<StepInFlight> in_flight_;  // in the order of submission
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_BATCHER_H_
