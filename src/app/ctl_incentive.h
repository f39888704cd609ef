// `efedllm-ctl incentive`: the rules of rewards, trust and audits, and what they do to populations.
#ifndef EFEDLLM_APP_CTL_INCENTIVE_H_
#define EFEDLLM_APP_CTL_INCENTIVE_H_

#include <CLI/CLI.hpp>

namespace efedllm {

// As AddPlanCommand; exit_code becomes 1 if a simulation shows that cheating pays, too.
void AddIncentiveCommand(CLI::App& root, int& exit_code);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_INCENTIVE_H_
