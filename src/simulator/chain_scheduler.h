// The scheduler's part of one chain: which sequences run on it, and its next step. The decisions
// are those of cluster/step_planner.h.
#ifndef EFEDLLM_SIMULATOR_CHAIN_SCHEDULER_H_
#define EFEDLLM_SIMULATOR_CHAIN_SCHEDULER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cluster/stage_plan.h"
#include "cluster/stage_times.h"
#include "cluster/step_planner.h"
#include "simulator/sim_spec.h"
#include "simulator/stage_cost.h"

namespace efedllm {

// A request and what became of it. Times in seconds of the simulation.
struct SimRequest {
  uint32_t prompt_tokens = 0;
  uint32_t output_tokens = 0;
  double arrived = 0;
  double first_token = 0;
  double last_token = 0;
  uint32_t generated = 0;

  uint32_t known() const { return prompt_tokens + generated; }
};

struct SimStep {
  struct Part {
    uint32_t request = 0;  // index
    uint64_t lease = 0;    // of the KV that it was computed with
    uint32_t first_position = 0;
    uint32_t tokens = 0;
  };

  size_t chain = 0;
  StepWork work;
  double submitted = 0;
  double arrived_at_stage = 0;
  std::vector<Part> parts;
  std::vector<StageTiming> timings;
};

class ChainScheduler {
 public:
  // requests and effort are borrowed and outlive this. effort: grows by what its decisions take, in
  // units of about one event.
  ChainScheduler(const Chain& chain, const SimRules& rules, std::vector<SimRequest>& requests,
                 uint64_t& effort);

  // As the coordinator: for what is known of it, beside what runs. What runs may grow later.
  bool Fits(const SimRequest& request) const;
  void Admit(uint32_t request);
  // The next step, if one should be submitted now; it is in flight then.
  std::optional<SimStep> NextStep();
  // Those that had to make room for others when KV ran out, since the last call: they wait again.
  std::vector<uint32_t> TakePreempted();
  // A step came back after round_trip seconds; the head took head_seconds.
  void Finish(const SimStep& step, double round_trip, double head_seconds);
  // Which requests get a token by it, in the order of its parts.
  std::vector<uint32_t> GetToken(const SimStep& step) const;
  // The request has one more token, or ends with it.
  void Extend(uint32_t request);
  void Retire(uint32_t request);

  size_t running() const { return running_.size(); }
  // How full it is, by sequences and by what a step takes.
  double load() const;

 private:
  struct Running {
    uint32_t request = 0;
    uint64_t lease = 0;
    uint64_t pages = 0;  // that it holds
  };

  size_t Find(uint32_t request) const;  // running_.size(): it doesn't run
  void Remove(size_t running);
  bool MakeRoom(uint32_t request, uint32_t length, const SimStep& next);
  const StepShape& Shape();

  const StepRules rules_;
  const uint32_t max_sequences_;
  const uint64_t pages_;
  std::vector<SimRequest>& requests_;
  uint64_t& effort_;

  std::vector<Running> running_;    // in the order of arrival
  std::vector<SequenceWork> work_;  // of running_
  std::vector<uint32_t> preempted_;
  uint64_t held_pages_ = 0;
  uint64_t last_lease_ = 0;
  size_t in_flight_ = 0;
  uint64_t last_step_ = 0;
  ChainTimes times_;
  StepShape shape_;
  StepDemand shaped_for_;
  uint64_t shaped_at_ = 0;  // step
};

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_CHAIN_SCHEDULER_H_
