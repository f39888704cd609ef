// `efedllm-ctl drain` and `efedllm-ctl undrain`: takes a node out of service, and puts it back.
#ifndef EFEDLLM_APP_CTL_DRAIN_H_
#define EFEDLLM_APP_CTL_DRAIN_H_

#include <CLI/CLI.hpp>

namespace efedllm {

// As for AddStatusCommand. exit_code is 3 where --wait's time was over before the node held
// nothing.
void AddDrainCommands(CLI::App& root, int& exit_code);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_DRAIN_H_
