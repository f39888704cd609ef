// efedllm-ctl: the operator's tool. Each subcommand lives in a file of its own.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "app/ctl_admin.h"
#include "app/ctl_audit.h"
#include "app/ctl_bench.h"
#include "app/ctl_codec.h"
#include "app/ctl_drain.h"
#include "app/ctl_eval.h"
#include "app/ctl_fault_simulation.h"
#include "app/ctl_incentive.h"
#include "app/ctl_ledger.h"
#include "app/ctl_model.h"
#include "app/ctl_plan.h"
#include "app/ctl_tokenize.h"
#include "common/logging.h"

namespace {

constexpr int kUsageError = 2;

int Main(int argc, char** argv) {
  // Only stdout is the answer; what the libraries log goes to stderr.
  const absl::Status logging = efedllm::InitLogging("warn", /*json=*/false);
  if (!logging.ok()) return 1;

  CLI::App app(
      "Looks into eFedLLM: models, tokens and clusters.\n"
      "Every subcommand has its own --help.");
  app.name("efedllm-ctl");
  app.set_version_flag("--version", EFEDLLM_VERSION);
  app.require_subcommand(1);
  int exit_code = 0;
  efedllm::AddStatusCommand(app, exit_code);
  efedllm::AddTokenCommand(app, exit_code);
  efedllm::AddDrainCommands(app, exit_code);
  efedllm::AddPardonCommand(app, exit_code);
  efedllm::AddAuditCommand(app, exit_code);
  efedllm::AddBenchCommand(app, exit_code);
  efedllm::AddCodecCommand(app, exit_code);
  efedllm::AddEvalCommand(app, exit_code);
  efedllm::AddIncentiveCommand(app, exit_code);
  efedllm::AddLedgerCommand(app, exit_code);
  efedllm::AddModelCommand(app, exit_code);
  efedllm::AddPlanCommand(app, exit_code);
  efedllm::AddSimulateCommand(app, exit_code);
  efedllm::AddTokenizeCommand(app, exit_code);
  efedllm::AddTraceCommand(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // --help and --version come by here too, with exit code 0.
    return app.exit(error) == 0 ? 0 : kUsageError;
  }
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
