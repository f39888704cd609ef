// efedllm-coord's flags, and what they mean once they are checked.
#ifndef EFEDLLM_APP_COORD_OPTIONS_H_
#define EFEDLLM_APP_COORD_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "app/daemon.h"
#include "coordinator/coordinator.h"

namespace efedllm {

// As typed, or as the config file has it.
struct CoordFlags {
  std::string model;
  std::string draft_model;
  std::string listen = "0.0.0.0:7070";
  std::string http = "127.0.0.1:8080";
  std::string state_dir;
  int64_t min_workers = 0;
  int64_t standby = 0;
  bool no_receipts = false;
  std::string incentive_rules;
  std::string codec = "lossless";
  std::string memory = "0";
  int64_t threads = 0;
  std::string kernels = "auto";
  std::string kv_type = "auto";
  std::string layout = "auto";
  int64_t context = 0;
  int64_t max_sequences = 16;
  int64_t queue = 128;
  bool insecure = false;
  std::string log_level = "info";
  bool log_json = false;
};

// What the defaults depend on.
struct CoordMachine {
  DaemonUser user;
  uint64_t available_memory_bytes = 0;
  int available_cpus = 1;
};

// Can't be wrong: CheckCoordFlags made it.
struct CoordOptions {
  CoordinatorOptions coordinator;
  std::string log_level;
  bool log_json = false;
};

void AddCoordFlags(CLI::App& app, CoordFlags& flags);

// InvalidArgument names the flag, and says what to do.
absl::StatusOr<CoordOptions> CheckCoordFlags(const CoordFlags& flags, const CoordMachine& machine);

// For DefaultStateDir.
inline constexpr char kCoordinatorState[] = "coordinator";

}  // namespace efedllm

#endif  // EFEDLLM_APP_COORD_OPTIONS_H_
