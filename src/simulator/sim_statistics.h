// What a simulation counts while it runs.
#ifndef EFEDLLM_SIMULATOR_SIM_STATISTICS_H_
#define EFEDLLM_SIMULATOR_SIM_STATISTICS_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "simulator/chain_scheduler.h"
#include "simulator/compute_servers.h"
#include "simulator/simulation.h"

namespace efedllm {

struct SimStatistics {
  uint64_t output_tokens_expected = 0;
  uint64_t events = 0;
  uint64_t steps = 0;
  uint64_t rows = 0;
  uint32_t most_running = 0;
  uint64_t preemptions = 0;
  std::vector<float> gaps;  // between two tokens of a request

  // `count` tokens came out at `now`.
  void OnTokens(double now, size_t count, const ComputeServers& servers);

  // All of a result that needs neither plan nor network.
  SimResult Summary(const std::vector<SimRequest>& requests) const;
  // The share of the steady time in which a server computed.
  double SteadyBusy(size_t server, const ComputeServers& servers) const;

 private:
  struct Mark {
    bool set = false;
    double at = 0;
    uint64_t tokens = 0;
    std::vector<double> busy_seconds;  // by server
  };
  void SetMark(Mark& mark, double now, const ComputeServers& servers) const;

  uint64_t tokens_ = 0;
  std::vector<std::pair<double, uint64_t>> timeline_;  // tokens so far
  Mark begin_, end_;                                   // of the steady time
};

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_SIM_STATISTICS_H_
