// Discrete events over the real planner (cluster/planner.h) and the real rules of the scheduler
// (cluster/step_planner.h): a step is submitted, travels over links, queues and computes at every
// stage, comes back, and the head turns it into tokens, from which the next steps are made.
#ifndef EFEDLLM_SIMULATOR_SIMULATION_H_
#define EFEDLLM_SIMULATOR_SIMULATION_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/stage_plan.h"
#include "simulator/sim_network.h"
#include "simulator/sim_spec.h"

namespace efedllm {

struct Quantiles {
  double median = 0;
  double p99 = 0;
  double most = 0;
};

struct StageUse {
  size_t chain = 0;
  size_t node = 0;  // index into the spec's nodes
  LayerRange layers;
  double busy = 0;  // share of the steady time in which it computed
};

// A bin of the time line.
struct RatePoint {
  double seconds = 0;  // the bin's end
  double tokens_per_second = 0;
};

// Rates are of the steady time: from the moment when a quarter of all output tokens was there until
// three quarters were. Seconds of simulated time.
struct SimResult {
  StagePlan plan;
  std::vector<std::string> advice;  // the planner's
  double seconds = 0;               // from the first request to the last token
  uint32_t requests = 0;
  uint32_t most_running = 0;
  uint64_t preemptions = 0;  // of sequences that made room when KV ran out
  uint64_t prompt_tokens = 0;
  uint64_t output_tokens = 0;
  uint64_t steps = 0;
  uint64_t events = 0;
  double tokens_per_second = 0;          // generated, all streams together
  double stream_tokens_per_second = 0;   // of a request after its first token, the median of all
  double overall_tokens_per_second = 0;  // output over all of the time, prompts included
  double rows_per_step = 0;
  Quantiles first_token_seconds;
  Quantiles inter_token_seconds;
  double head_busy = 0;  // of the coordinator's scheduler
  std::vector<StageUse> stages;
  std::vector<LinkUse> links;
  double bytes_per_token = 0;  // over all links, for each token of prompt or output
  double bytes = 0;
  std::vector<RatePoint> rates;
};

// Deterministic: the same spec gives the same result. ResourceExhausted: the model does not fit the
// nodes (the planner's message), or more events would be needed than a person waits for.
absl::StatusOr<SimResult> Simulate(const SimSpec& spec);

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_SIMULATION_H_
