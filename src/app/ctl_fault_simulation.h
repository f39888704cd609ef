// `efedllm-ctl simulate`: what the cluster does when things go wrong, replayed from a seed.
#ifndef EFEDLLM_APP_CTL_FAULT_SIMULATION_H_
#define EFEDLLM_APP_CTL_FAULT_SIMULATION_H_

#include <CLI/CLI.hpp>

namespace efedllm {

// As AddPlanCommand; exit_code becomes 1 if a check did not hold, too.
void AddSimulateCommand(CLI::App& root, int& exit_code);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_FAULT_SIMULATION_H_
