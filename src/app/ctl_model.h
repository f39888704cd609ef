// `efedllm-ctl model`: what a model file is.
#ifndef EFEDLLM_APP_CTL_MODEL_H_
#define EFEDLLM_APP_CTL_MODEL_H_

#include <CLI/CLI.hpp>

namespace efedllm {

// Adds the subcommand to root. It runs while root parses, writes to stdout, and sets exit_code to 1
// if it failed (the reason goes to stderr). exit_code must outlive root's parsing.
void AddModelCommand(CLI::App& root, int& exit_code);
// Its "compress".
void AddModelCompressCommand(CLI::App& model, int& exit_code);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_MODEL_H_
