// What the subcommands of `efedllm-ctl ledger` share. Each adds itself to ledger, runs while it
// parses, and sets exit_code to 1 if it failed.
#ifndef EFEDLLM_APP_CTL_LEDGER_PARTS_H_
#define EFEDLLM_APP_CTL_LEDGER_PARTS_H_

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/ledger_head.h"
#include "incentive/ledger_reader.h"

namespace efedllm {

struct LedgerFlags {
  std::string file;
  std::string state_dir;
  bool json = false;
};

// --file and --state-dir; what_json: what --json prints.
void AddLedgerFlags(CLI::App& command, LedgerFlags& flags, const std::string& what_json);
// The file that the flags mean.
absl::StatusOr<std::string> LedgerFile(const LedgerFlags& flags);
absl::StatusOr<std::unique_ptr<LedgerReader>> OpenLedgerReader(const LedgerFlags& flags);

// Heads in these files (one a line), and in the files of these folders: a worker's state folder, or
// its folder of heads, of which only those by the key count. Signatures are not checked.
// InvalidArgument: they are by several keys.
absl::StatusOr<std::vector<SignedLedgerHead>> ReadHeads(const std::vector<std::string>& paths,
                                                        const std::optional<PublicKey>& key);

void AddLedgerVerifyCommand(CLI::App& ledger, int& exit_code);
void AddLedgerHeadCommand(CLI::App& ledger, int& exit_code);
void AddLedgerHeadsCommand(CLI::App& ledger, int& exit_code);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_LEDGER_PARTS_H_
