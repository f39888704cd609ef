// efedllm-worker-adversary: a worker that cheats, for tests of audits. Same flags as
// efedllm-worker, and --cheat.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "adversary/cheat_watch.h"
#include "adversary/cheats.h"
#include "app/daemon.h"
#include "app/worker_options.h"
#include "common/clock.h"
#include "common/logging.h"
#include "common/machine.h"
#include "spdlog/spdlog.h"
#include "worker/worker.h"

namespace efedllm {
namespace {

std::string Help() {
  std::string help = "how:";
  for (const CheatKind& kind : CheatKinds()) help += "\n" + kind.name + ": " + kind.what;
  return help;
}

// What it did so far, for who watches; empty: nobody does.
void WriteReport(const CheatWatch& watch, const std::string& path) {
  if (path.empty()) return;
  const std::string fresh = path + ".new";
  std::ofstream(fresh) << watch.ToJson().dump() << "\n";
  (void)std::rename(fresh.c_str(), path.c_str());
}

int Run(const CheckedWorkerOptions& options, const sigset_t& signals, const CheatWatch& watch,
        const std::string& report) {
  const SystemClock clock;
  const absl::StatusOr<std::unique_ptr<Worker>> worker = Worker::Create(options.worker, clock);
  if (!worker.ok()) return Fail(worker.status(), kRuntimeError);
  (*worker)->Start();
  const timespec interval{0, 100'000'000};
  std::optional<absl::Status> end;
  while (!end && sigtimedwait(&signals, nullptr, &interval) < 0) {
    end = (*worker)->Wait(absl::ZeroDuration());
    WriteReport(watch, report);
  }
  if (!end) {
    (*worker)->Stop();
    end = (*worker)->Wait(absl::InfiniteDuration());
  }
  WriteReport(watch, report);
  return end->ok() ? 0 : Fail(*end, kRuntimeError);
}

int Main(int argc, char** argv) {
  CLI::App app("A worker that cheats, for tests.");
  app.name("efedllm-worker-adversary");
  WorkerFlags flags;
  AddWorkerFlags(app, flags);
  std::string cheat, report;
  app.add_option("--cheat", cheat, Help())->required();
  app.add_option("--report", report, "File that says, as JSON, what it did so far");
  if (const auto exit_code = ParseFlags(app, argc, argv, "config/worker.toml")) return *exit_code;
  WorkerMachine machine;
  machine.user = ThisUser();
  machine.token = Environment("EFEDLLM_TOKEN");
  machine.host_name = HostName();
  machine.available_cpus = AvailableCpus();
  absl::StatusOr<CheckedWorkerOptions> options = CheckWorkerFlags(flags, machine);
  if (!options.ok()) return Fail(options.status(), kUsageError);
  absl::StatusOr<StageTamper> tamper = MakeCheat(cheat);
  if (!tamper.ok()) return Fail(tamper.status(), kUsageError);
  CheatWatch watch;
  options->worker.tamper = watch.Watch(*std::move(tamper));
  const absl::Status logging = InitLogging(options->log_level, options->log_json);
  if (!logging.ok()) return Fail(logging, kUsageError);
  spdlog::warn("this worker cheats: {}", cheat);
  return Run(*options, PrepareProcess(), watch, report);
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) { return efedllm::RunGuarded(efedllm::Main, argc, argv); }
