// efedllm-worker's flags, and what they mean once they are checked.
#ifndef EFEDLLM_APP_WORKER_OPTIONS_H_
#define EFEDLLM_APP_WORKER_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "app/daemon.h"
#include "worker/worker.h"

namespace efedllm {

// As typed, or as the config file has it.
struct WorkerFlags {
  std::string join;
  std::string token;
  std::string state_dir;
  std::string name;
  std::string owner;
  std::string listen;
  std::string advertise;
  int64_t threads = 0;
  std::string memory = "0";
  std::string audit_memory = "24MiB";
  std::string audit_disk = "1GiB";
  std::string kernels = "auto";
  std::string retry_for = "24h";
  bool insecure = false;
  std::string log_level = "info";
  bool log_json = false;
};

// What the defaults depend on.
struct WorkerMachine {
  DaemonUser user;
  std::string token;  // $EFEDLLM_TOKEN; empty: not set
  std::string host_name;
  int available_cpus = 1;
};

// Can't be wrong: CheckWorkerFlags made it.
struct CheckedWorkerOptions {
  WorkerOptions worker;
  std::string log_level;
  bool log_json = false;
};

void AddWorkerFlags(CLI::App& app, WorkerFlags& flags);

// InvalidArgument names the flag, and says what to do. Never repeats the token.
absl::StatusOr<CheckedWorkerOptions> CheckWorkerFlags(const WorkerFlags& flags,
                                                      const WorkerMachine& machine);

}  // namespace efedllm

#endif  // EFEDLLM_APP_WORKER_OPTIONS_H_
