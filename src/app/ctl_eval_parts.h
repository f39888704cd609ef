// The subcommands of `efedllm-ctl eval`, a file for each kind. Each adds itself to eval, runs while
// it parses, and sets exit_code to 1 if it failed.
#ifndef EFEDLLM_APP_CTL_EVAL_PARTS_H_
#define EFEDLLM_APP_CTL_EVAL_PARTS_H_

#include <CLI/CLI.hpp>

namespace efedllm {

void AddPerplexityCommand(CLI::App& eval, int& exit_code);
void AddKlCommand(CLI::App& eval, int& exit_code);
void AddTasksCommand(CLI::App& eval, int& exit_code);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_EVAL_PARTS_H_
