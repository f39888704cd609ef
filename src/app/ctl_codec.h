// `efedllm-ctl codec`: what the codecs of transfers know of a model, and what they cost it.
#ifndef EFEDLLM_APP_CTL_CODEC_H_
#define EFEDLLM_APP_CTL_CODEC_H_

#include <CLI/CLI.hpp>

namespace efedllm {

// Adds the subcommand to root. It runs while root parses, writes to stdout, and sets exit_code to 1
// if it failed (the reason goes to stderr). exit_code must outlive root's parsing.
void AddCodecCommand(CLI::App& root, int& exit_code);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_CODEC_H_
