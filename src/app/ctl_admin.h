// `efedllm-ctl status` and `efedllm-ctl token`: what a running coordinator says of itself, over the
// socket in its state dir.
#ifndef EFEDLLM_APP_CTL_ADMIN_H_
#define EFEDLLM_APP_CTL_ADMIN_H_

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "wire/admin_service.h"

namespace efedllm {

// state_dir: the coordinator's; empty: its default. Unavailable: no coordinator answers there.
absl::StatusOr<std::unique_ptr<v1::Admin::Stub>> ConnectToCoordinator(std::string state_dir);

// Each adds its subcommand to root. It runs while root parses, writes to stdout, and sets exit_code
// to 1 if it failed (the reason goes to stderr). exit_code must outlive root's parsing.
void AddStatusCommand(CLI::App& root, int& exit_code);
void AddTokenCommand(CLI::App& root, int& exit_code);
void AddTraceCommand(CLI::App& root, int& exit_code);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_ADMIN_H_
