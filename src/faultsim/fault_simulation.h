// One seed, one run: a coordinator, some workers and clients, faults for a while, and then none, so
// that all must heal. The same seed gives the same run.
#ifndef EFEDLLM_FAULTSIM_FAULT_SIMULATION_H_
#define EFEDLLM_FAULTSIM_FAULT_SIMULATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "faultsim/memory_disk.h"
#include "faultsim/mutation.h"
#include "faultsim/tiny_model.h"

namespace efedllm::faultsim {

struct RunOptions {
  uint64_t seed = 0;
  uint64_t steps = 1000;  // events with faults; those in which all heals come on top
  Mutation mutation = Mutation::kNone;
  std::function<void(const std::string&)> log;  // line by line; empty: none
};

struct RunResult {
  uint64_t seed = 0;
  std::string violation;  // empty: all checks held
  uint64_t steps = 0;     // events
  absl::Duration virtual_time;
  uint64_t faults = 0;
  uint64_t epochs = 0;
  uint64_t answered = 0;  // requests
  uint64_t refused = 0;
  uint64_t tokens = 0;
  uint64_t coordinator_starts = 0;
};

// The model and an empty state database, made once and used by one run after the other.
class FaultSimulation {
 public:
  // dir: for the model's file; it exists.
  static absl::StatusOr<std::unique_ptr<FaultSimulation>> Create(const std::string& dir);

  // Never fails: what goes wrong is the result's violation.
  RunResult Run(const RunOptions& options);

 private:
  FaultSimulation() = default;

  std::string dir_;
  std::unique_ptr<TinyModel> model_;
  std::unique_ptr<MemoryDisk> template_disk_;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_FAULT_SIMULATION_H_
