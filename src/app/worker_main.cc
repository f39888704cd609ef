// efedllm-worker: lends this machine to a coordinator.
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <ctime>
#include <memory>
#include <optional>
#include <string>

#include "app/daemon.h"
#include "app/worker_options.h"
#include "common/clock.h"
#include "common/logging.h"
#include "common/machine.h"
#include "spdlog/spdlog.h"
#include "worker/worker.h"

namespace efedllm {
namespace {

constexpr int kRefused = 3;

WorkerMachine ThisMachine() {
  WorkerMachine machine;
  machine.user = ThisUser();
  machine.token = Environment("EFEDLLM_TOKEN");
  machine.host_name = HostName();
  machine.available_cpus = AvailableCpus();
  return machine;
}

// SIGTERM or SIGINT, which are blocked in all threads. The worker may also end by itself.
std::optional<absl::Status> AwaitEnd(Worker& worker, const sigset_t& signals) {
  const timespec interval{0, 200'000'000};
  while (sigtimedwait(&signals, nullptr, &interval) < 0) {
    std::optional<absl::Status> end = worker.Wait(absl::ZeroDuration());
    if (end) return end;
  }
  return std::nullopt;
}

int Run(CheckedWorkerOptions options, const sigset_t& signals) {
  const SystemClock clock;
  options.worker.engine_version = EFEDLLM_VERSION;
  options.worker.draw_bar = isatty(STDERR_FILENO) != 0 && !options.log_json;
  options.worker.on_attached = [] { sd_notify(0, "READY=1\nSTATUS=attached to the coordinator"); };
  spdlog::info("measuring this machine");
  const absl::StatusOr<std::unique_ptr<Worker>> worker = Worker::Create(options.worker, clock);
  if (!worker.ok()) {
    return Fail(worker.status(),
                absl::IsInvalidArgument(worker.status()) ? kUsageError : kRuntimeError);
  }
  const NodeProfile& profile = (*worker)->profile();
  spdlog::info("{} threads: {:.1f} GB/s of memory, {:.0f} Gop/s int8, {:.0f} GFLOP/s f32",
               profile.threads, profile.read_bytes_per_second / 1e9,
               profile.int8_ops_per_second / 1e9, profile.f32_flops_per_second / 1e9);
  (*worker)->Start();
  std::optional<absl::Status> end = AwaitEnd(**worker, signals);
  if (!end) {
    sd_notify(0, "STOPPING=1\nSTATUS=leaving");
    spdlog::info("stopping; a second signal stops at once");
    LetSignalsKill(signals);
    (*worker)->Stop();
    end = (*worker)->Wait(absl::InfiniteDuration());
    spdlog::info("stopped");
  }
  if (end->ok()) return 0;
  return Fail(*end, IsRefusal(*end) ? kRefused : kRuntimeError);
}

int Main(int argc, char** argv) {
  CLI::App app("Lends this machine to an eFedLLM coordinator: it holds some of a model's layers.");
  app.name("efedllm-worker");
  app.set_version_flag("--version", EFEDLLM_VERSION);
  WorkerFlags flags;
  AddWorkerFlags(app, flags);
  if (const auto exit_code = ParseFlags(app, argc, argv, "config/worker.toml")) return *exit_code;
  const absl::StatusOr<CheckedWorkerOptions> options = CheckWorkerFlags(flags, ThisMachine());
  const absl::Status status =
      options.ok() ? InitLogging(options->log_level, options->log_json) : options.status();
  if (!status.ok()) return Fail(status, kUsageError);
  return Run(*options, PrepareProcess());
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) { return efedllm::RunGuarded(efedllm::Main, argc, argv); }
