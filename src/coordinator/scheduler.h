// Requests -> steps: continuous batching. Decode tokens of the running sequences and chunks of new
// prompts share steps; several steps are in flight, so that every stage is busy.
#ifndef EFEDLLM_COORDINATOR_SCHEDULER_H_
#define EFEDLLM_COORDINATOR_SCHEDULER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/draft_model.h"
#include "coordinator/generation.h"
#include "coordinator/pipeline.h"
#include "coordinator/served_model.h"
#include "coordinator/step_observers.h"
#include "prometheus/registry.h"

namespace efedllm {

struct SchedulerOptions {
  size_t max_queue = 128;          // sequences that wait; beyond: 429
  size_t max_sequences = 16;       // that run at once; at most the pipeline's max_spans
  uint32_t max_step_tokens = 256;  // rows in a step, decodes first, prompts with what is left
  // Without a serving epoch: new requests queue for so long after the last one ended, running ones
  // wait for so long; then they fail with Unavailable.
  absl::Duration outage_admission = absl::Seconds(5);
  absl::Duration outage_patience = absl::Seconds(60);
};

// A snapshot for status pages.
struct SchedulerStats {
  bool serving = false;
  std::string reason;  // why it doesn't serve; else empty
  size_t queued = 0;   // sequences
  size_t running = 0;
  uint64_t kv_tokens_held = 0;    // by what runs, in whole pages
  uint64_t kv_tokens_cached = 0;  // by prefixes that nobody needs now
  uint64_t kv_tokens_total = 0;
  uint64_t prompt_tokens = 0;  // since the start
  uint64_t generated_tokens = 0;
  double generated_tokens_per_second = 0;  // over the last 10 s
  uint64_t steps = 0;
  uint64_t replays = 0;      // sequences computed anew because an epoch ended or a step failed
  uint64_t preemptions = 0;  // sequences that made room for others, and came back
};

// Thread-safe. One thread of its own drives the pipeline, the head and the samplers. What a
// sequence yields depends on its own input alone: not on batch mates, chunking, stages or replays.
class Scheduler {
 public:
  // Everything is borrowed and outlives this. model's head and the draft model (null: none) are
  // used by the scheduler's thread only.
  Scheduler(const Clock& clock, ServedModel& model, Pipeline& pipeline,
            const SchedulerOptions& options, prometheus::Registry& registry,
            const StepObservers& observers = {}, DraftModel* draft_model = nullptr);
  ~Scheduler();  // stops at once: what runs fails with Unavailable

  // Positions that one sequence may have, prompt and output together: the model's context, or less
  // where KV memory is short. Unavailable: nothing serves, in words for a client.
  absl::StatusOr<uint32_t> MaxPositions() const;

  // Queues all choices of a request, or none. ResourceExhausted: the queue is full; Unavailable:
  // nothing serves, or draining; InvalidArgument: longer than MaxPositions(), or more choices than
  // the queue is long. request_id: the API's name for it, for traces.
  absl::StatusOr<std::shared_ptr<Generation>> Submit(std::vector<GenerationInput> choices,
                                                     std::string request_id = "");

  // OK: a real forward pass went through all stages within the last second, or now, before the
  // timeout. Many callers cost one pass.
  absl::Status Probe(absl::Duration timeout);

  // From now on Submit refuses.
  void Drain();
  // True: nothing is queued or running any more.
  bool WaitIdle(absl::Duration timeout) const;

  SchedulerStats Stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_SCHEDULER_H_
