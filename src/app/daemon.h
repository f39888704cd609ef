// What both daemons do as processes: flags, signals, where their state belongs, how they end.
#ifndef EFEDLLM_APP_DAEMON_H_
#define EFEDLLM_APP_DAEMON_H_

#include <CLI/CLI.hpp>
#include <csignal>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace efedllm {

inline constexpr int kRuntimeError = 1;
inline constexpr int kUsageError = 2;

// Who runs a daemon: what the place of its state depends on.
struct DaemonUser {
  bool root = false;
  std::string xdg_state_home;  // $XDG_STATE_HOME; empty: not set
  std::string home;            // $HOME; empty: not set
};
DaemonUser ThisUser();

// The state folder where none is given: /var/lib/efedllm/<daemon> for root, else below
// $XDG_STATE_HOME or ~/.local/state. InvalidArgument: there is no home.
absl::StatusOr<std::string> DefaultStateDir(const DaemonUser& user, absl::string_view daemon);

// An environment variable; "" where it isn't set.
std::string Environment(const char* name);
// "" where the machine has no name.
std::string HostName();

// Says it on stderr, and hands exit_code back.
int Fail(const absl::Status& status, int exit_code);

// Parses the command line. The exit code where the process ends here: --help, --version, a mistake
// (said on stderr; config_example is the file that shows all options).
std::optional<int> ParseFlags(CLI::App& app, int argc, char** argv,
                              absl::string_view config_example);

// Before any other thread is made: blocks SIGTERM and SIGINT in all of them (the result, to wait
// for), ignores SIGPIPE, and silences gRPC and protobuf, whose own logs are errors that we report
// or what a peer sent to fill ours.
sigset_t PrepareProcess();
// A further SIGTERM or SIGINT ends the process at once.
void LetSignalsKill(const sigset_t& signals);

// Runs main, and makes an exception that a library let out an error message.
int RunGuarded(int (*main)(int, char**), int argc, char** argv);

}  // namespace efedllm

#endif  // EFEDLLM_APP_DAEMON_H_
