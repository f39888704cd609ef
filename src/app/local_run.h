// What the subcommands that compute on this machine alone share: their flags, a loaded model, and
// how they end.
#ifndef EFEDLLM_APP_LOCAL_RUN_H_
#define EFEDLLM_APP_LOCAL_RUN_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "layers/compute.h"
#include "model/local_model.h"
#include "model/model_file.h"

namespace efedllm {

struct LocalFlags {
  std::string model;
  int threads = 0;  // 0: one per CPU
  std::string kernels = "auto";
  std::string kv_type;
  bool json = false;
};

// --model, --kernels and --kv-type; kv_type: the default of the last.
void AddModelFlags(CLI::App& command, LocalFlags& flags, const std::string& kv_type);
// --threads and --json.
void AddThreadsFlag(CLI::App& command, LocalFlags& flags);
void AddJsonFlag(CLI::App& command, LocalFlags& flags, const std::string& what_it_prints);

// A model and all that it borrows from. Does not move: the parts point at each other.
struct LocalRun {
  explicit LocalRun(ModelFile file) : file(std::move(file)) {}
  LocalRun(const LocalRun&) = delete;
  LocalRun& operator=(const LocalRun&) = delete;

  const ModelFile file;
  Compute compute;
  std::unique_ptr<LocalModel> model;
};

// Opens the file, and loads the model with as many threads as flags say. options.kv_type is the
// flags'. Errors name the file or the flag.
absl::StatusOr<std::unique_ptr<LocalRun>> OpenLocal(const LocalFlags& flags,
                                                    LocalModelOptions options);

// Runs `run` when the subcommand was named. If it fails, the reason goes to stderr and exit_code,
// which outlives the parsing, becomes 1.
void OnCommand(CLI::App& command, int& exit_code, std::function<absl::Status()> run);

}  // namespace efedllm

#endif  // EFEDLLM_APP_LOCAL_RUN_H_
