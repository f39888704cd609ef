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

// A request and what became of it. Times in seconds of the simulation; NaN: not yet.
struct SimRequest {
  uint32_t stream = 0;
  uint32_t prompt_tokens = 0;
  uint32_t output_tokens = 0;
  double arrived = 0;
  double first_token = 0;
  double last_token = 0;
  uint32_t generated = 0;

  // Whole pages for all that it may become.
  uint64_t KvTokens() const;
};

struct SimStep {
  size_t chain = 0;
  StepWork work;
  double submitted = 0;
  struct Part {
    uint32_t request = 0;  // index
    uint32_t first_position = 0;
    uint32_t tokens = 0;
  };
  std::vector<Part> parts;
  std::vector<StageTiming> timings;
  double arrived_at_stage = 0;
};

class ChainScheduler {
 public:
  // requests is borrowed and outlives this.
  ChainScheduler(const Chain& chain, const SimRules& rules, std::vector<SimRequest>& requests);

  bool HasRoom(const SimRequest& request) const;
  void Admit(uint32_t request);
  // The next step, if one should be submitted now; it is in flight then.
  std::optional<SimStep> NextStep();
  // A step came back after round_trip seconds; the head took head_seconds.
  void Finish(const SimStep& step, double round_trip, double head_seconds);
  // Tells which requests got a token: their indices are appended.
  void TakeTokens(const SimStep& step, std::vector<uint32_t>& got_token);
  void Retire(uint32_t request);

  size_t running() const { return running_.size(); }

 private:
  const StepShape& Shape();

  const StepRules rules_;
  const uint32_t max_sequences_;
  const uint64_t kv_tokens_;
  std::vector<SimRequest>& requests_;

  std::vector<uint32_t> running_;   // requests in the order of admission
  std::vector<SequenceWork> work_;  // of running_
  uint64_t kv_reserved_ = 0;
  size_t in_flight_ = 0;
  uint64_t last_step_ = 0;
  ChainTimes times_;
  StepShape shape_;
  StepDemand shaped_for_;
  uint64_t shaped_at_ = 0;  // step
};

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_CHAIN_SCHEDULER_H_
