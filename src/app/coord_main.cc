// efedllm-coord: serves one model over the workers that join.
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "app/coord_options.h"
#include "app/daemon.h"
#include "common/logging.h"
#include "common/machine.h"
#include "coordinator/coordinator.h"
#include "net/address.h"
#include "spdlog/spdlog.h"

namespace efedllm {
namespace {

constexpr absl::Duration kDrainTime = absl::Seconds(30);

CoordMachine ThisMachine() {
  CoordMachine machine;
  machine.user = ThisUser();
  machine.available_memory_bytes = AvailableMemoryBytes();
  machine.available_cpus = AvailableCpus();
  return machine;
}

// HOST:PORT that others can use, for an address that may mean "all interfaces" or "any port".
std::string Reachable(const std::string& address, int port, const std::string& own_name) {
  HostPort host_port = ParseHostPort(address).value();
  const bool any = host_port.host == "0.0.0.0" || host_port.host == "::";
  return FormatHostPort({any ? own_name : host_port.host, static_cast<uint16_t>(port)});
}

// To stdout, which is for the operator's eyes; the log never sees the token.
void PrintWelcome(const Coordinator& coordinator, const CoordinatorOptions& options) {
  const std::string host = HostName();
  const std::string name = host.empty() ? "localhost" : host;
  const std::string http = Reachable(options.http, coordinator.http_port(), name);
  const std::string join = Reachable(options.listen, coordinator.listen_port(), name);
  std::string token = absl::StrCat("--token ", coordinator.join_token());
  if (!Environment("JOURNAL_STREAM").empty() && isatty(STDOUT_FILENO) == 0) {
    // Then stdout is a log, too.
    token = absl::StrCat("--token \"$(cat ", options.state_dir, "/join-token)\"");
  }
  if (options.insecure) token = "--insecure";
  std::printf("model  %s\nAPI    http://%s/v1\njoin   efedllm-worker --join %s %s\n",
              coordinator.model_id().c_str(), http.c_str(), join.c_str(), token.c_str());
  std::fflush(stdout);
}

void NotifyStatus(const Coordinator& coordinator, std::string& last) {
  const ClusterStatus status = coordinator.cluster_status();
  size_t workers = 0;
  for (const Member& member : status.members) workers += member.state() != MemberState::kGone;
  const std::string text = absl::StrCat("STATUS=", status.state, ", ", workers, " workers",
                                        status.reason.empty() ? "" : ": ", status.reason);
  if (text == last) return;
  sd_notify(0, text.c_str());
  last = text;
}

// Until SIGTERM or SIGINT. Both are blocked in all threads.
void AwaitSignal(const Coordinator& coordinator, const sigset_t& signals) {
  std::string last_status;
  const timespec second{1, 0};
  while (sigtimedwait(&signals, nullptr, &second) < 0) NotifyStatus(coordinator, last_status);
}

int Run(const CoordOptions& options, const sigset_t& signals) {
  const SystemClock clock;
  absl::StatusOr<std::unique_ptr<Coordinator>> coordinator =
      Coordinator::Start(options.coordinator, clock);
  if (!coordinator.ok()) return Fail(coordinator.status(), kRuntimeError);
  if (!IsLoopback(options.coordinator.http)) {
    spdlog::warn("the API on {} asks for no key: everybody who reaches it can use the model",
                 options.coordinator.http);
  }
  PrintWelcome(**coordinator, options.coordinator);
  sd_notify(0, "READY=1");
  AwaitSignal(**coordinator, signals);

  spdlog::info("stopping: finishing what runs, for up to {} s; a second signal stops at once",
               absl::ToInt64Seconds(kDrainTime));
  sd_notify(0, "STOPPING=1\nSTATUS=draining");
  LetSignalsKill(signals);
  if (!(*coordinator)->Drain(kDrainTime)) spdlog::warn("some requests were cut off");
  coordinator->reset();
  spdlog::info("stopped");
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App app(
      "Serves a model over the workers that join, behind an OpenAI-compatible API.\n"
      "Prints the API's address and the command that joins a worker.");
  app.name("efedllm-coord");
  app.set_version_flag("--version", EFEDLLM_VERSION);
  CoordFlags flags;
  AddCoordFlags(app, flags);
  if (const auto exit_code = ParseFlags(app, argc, argv, "config/coordinator.toml")) {
    return *exit_code;
  }
  const absl::StatusOr<CoordOptions> options = CheckCoordFlags(flags, ThisMachine());
  const absl::Status status =
      options.ok() ? InitLogging(options->log_level, options->log_json) : options.status();
  if (!status.ok()) return Fail(status, kUsageError);
  return Run(*options, PrepareProcess());
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) { return efedllm::RunGuarded(efedllm::Main, argc, argv); }
