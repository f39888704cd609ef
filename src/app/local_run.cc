#include "app/local_run.h"

#include <cstdio>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/machine.h"
#include "common/status_macros.h"
#include "tensor/kv_type.h"

namespace efedllm {

void AddModelFlags(CLI::App& command, LocalFlags& flags, const std::string& kv_type) {
  flags.kv_type = kv_type;
  command
      .add_option("--model", flags.model,
                  "GGUF file (any part of a split one), or a Hugging Face folder")
      ->required();
  command
      .add_option("--kernels", flags.kernels, "auto, or a set that this CPU runs: scalar, avx2 ...")
      ->capture_default_str();
  command
      .add_option("--kv-type", flags.kv_type,
                  "What keys and values are kept in: f32, f16, q8_0, or auto: what serving takes")
      ->capture_default_str();
}

void AddThreadsFlag(CLI::App& command, LocalFlags& flags) {
  command.add_option("--threads", flags.threads, "Threads that compute; 0: one per CPU")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

void AddJsonFlag(CLI::App& command, LocalFlags& flags, const std::string& what_it_prints) {
  command.add_flag("--json", flags.json, absl::StrCat("Print ", what_it_prints));
}

absl::StatusOr<std::unique_ptr<LocalRun>> OpenLocal(const LocalFlags& flags,
                                                    LocalModelOptions options) {
  options.kv_type = KvTypeFromName(flags.kv_type);
  if (!options.kv_type.has_value() && flags.kv_type != "auto") {
    return absl::InvalidArgumentError(absl::StrCat("--kv-type: unknown type \"", flags.kv_type,
                                                   "\"; use auto, f32, f16 or q8_0"));
  }
  ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(flags.model));
  auto run = std::make_unique<LocalRun>(std::move(file));
  const int threads = flags.threads == 0 ? AvailableCpus() : flags.threads;
  ASSIGN_OR_RETURN(run->compute, Compute::Create(threads, flags.kernels));
  absl::StatusOr<std::unique_ptr<LocalModel>> model =
      LocalModel::Create(run->file, options, run->compute);
  if (!model.ok()) return run->file.About(model.status());
  run->model = *std::move(model);
  return run;
}

void OnCommand(CLI::App& command, int& exit_code, std::function<absl::Status()> run) {
  command.callback([run = std::move(run), &exit_code] {
    const absl::Status status = run();
    if (status.ok()) return;
    std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
    exit_code = 1;
  });
}

}  // namespace efedllm
