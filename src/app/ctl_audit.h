// `efedllm-ctl audit`: the evidence of chunks that were proven wrong. `efedllm-ctl pardon`.
#ifndef EFEDLLM_APP_CTL_AUDIT_H_
#define EFEDLLM_APP_CTL_AUDIT_H_

#include <CLI/CLI.hpp>

namespace efedllm {

// Each adds its subcommand to root. It runs while root parses, writes to stdout, and sets exit_code
// to 1 if it failed (the reason goes to stderr). exit_code must outlive root's parsing.
void AddAuditCommand(CLI::App& root, int& exit_code);
void AddPardonCommand(CLI::App& root, int& exit_code);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_AUDIT_H_
