// efedllm-worker: lends this machine to a coordinator.
#include <google/protobuf/stubs/logging.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <memory>
#include <optional>
#include <string>

#include "app/worker_options.h"
#include "common/clock.h"
#include "common/logging.h"
#include "spdlog/spdlog.h"
#include "worker/probe.h"
#include "worker/worker.h"

namespace efedllm {
namespace {

constexpr int kRuntimeError = 1;
constexpr int kUsageError = 2;
constexpr int kRefused = 3;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

WorkerMachine ThisMachine() {
  WorkerMachine machine;
  machine.root = geteuid() == 0;
  machine.xdg_state_home = Environment("XDG_STATE_HOME");
  machine.home = Environment("HOME");
  machine.token = Environment("EFEDLLM_TOKEN");
  char name[256] = "";
  if (gethostname(name, sizeof name - 1) == 0) machine.host_name = name;
  machine.available_cpus = AvailableCpus();
  return machine;
}

int Fail(const absl::Status& status, int exit_code) {
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return exit_code;
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
    std::signal(SIGTERM, [](int) { _exit(kRuntimeError); });
    std::signal(SIGINT, [](int) { _exit(kRuntimeError); });
    pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
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
  try {
    app.parse(argc, argv);
  } catch (const CLI::ConfigError& error) {
    std::fprintf(stderr, "error: --config: %s; config/worker.toml shows all options\n",
                 error.what());
    return kUsageError;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsageError;
  }
  const absl::StatusOr<CheckedWorkerOptions> options = CheckWorkerFlags(flags, ThisMachine());
  const absl::Status status =
      options.ok() ? InitLogging(options->log_level, options->log_json) : options.status();
  if (!status.ok()) return Fail(status, kUsageError);
  // What gRPC and protobuf log by themselves are errors that we report, or what a peer sent to fill
  // our log.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  google::protobuf::SetLogHandler(nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any other thread is made
  return Run(*options, signals);
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) {
  try {
    return efedllm::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
