// `efedllm-ctl ledger`: proves a ledger file, and says what is in it.
#ifndef EFEDLLM_APP_CTL_LEDGER_H_
#define EFEDLLM_APP_CTL_LEDGER_H_

#include <CLI/CLI.hpp>

namespace efedllm {

// Adds the subcommand to root. It runs while root parses, writes to stdout, and sets exit_code to 1
// if it failed (the reason goes to stderr) or the ledger is not sound. exit_code must outlive
// root's parsing.
void AddLedgerCommand(CLI::App& root, int& exit_code);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_LEDGER_H_
