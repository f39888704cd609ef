// The subcommands of `efedllm-ctl codec`, a file for each. Each adds itself to codec, runs while it
// parses, and sets exit_code to 1 if it failed.
#ifndef EFEDLLM_APP_CTL_CODEC_PARTS_H_
#define EFEDLLM_APP_CTL_CODEC_PARTS_H_

#include <CLI/CLI.hpp>

namespace efedllm {

void AddCodecReportCommand(CLI::App& codec, int& exit_code);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_CODEC_PARTS_H_
