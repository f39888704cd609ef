#include "app/daemon.h"

#include <google/protobuf/stubs/logging.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace efedllm {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

std::string HostName() {
  char name[256] = "";
  return gethostname(name, sizeof name - 1) == 0 ? name : "";
}

DaemonUser ThisUser() {
  return {geteuid() == 0, Environment("XDG_STATE_HOME"), Environment("HOME")};
}

absl::StatusOr<std::string> DefaultStateDir(const DaemonUser& user, absl::string_view daemon) {
  const std::string below = absl::StrCat("/efedllm/", daemon);
  if (user.root) return absl::StrCat("/var/lib", below);
  if (!user.xdg_state_home.empty()) return absl::StrCat(user.xdg_state_home, below);
  if (!user.home.empty()) return absl::StrCat(user.home, "/.local/state", below);
  return absl::InvalidArgumentError("there is no $HOME; say where state belongs with --state-dir");
}

int Fail(const absl::Status& status, int exit_code) {
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return exit_code;
}

std::optional<int> ParseFlags(CLI::App& app, int argc, char** argv,
                              absl::string_view config_example) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ConfigError& error) {
    std::fprintf(stderr, "error: --config: %s; %s shows all options\n", error.what(),
                 std::string(config_example).c_str());
    return kUsageError;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsageError;
  }
  return std::nullopt;
}

sigset_t PrepareProcess() {
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  google::protobuf::SetLogHandler(nullptr);
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

void LetSignalsKill(const sigset_t& signals) {
  std::signal(SIGTERM, [](int) { _exit(kRuntimeError); });
  std::signal(SIGINT, [](int) { _exit(kRuntimeError); });
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

int RunGuarded(int (*main)(int, char**), int argc, char** argv) {
  try {
    return main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return kRuntimeError;
  }
}

}  // namespace efedllm
