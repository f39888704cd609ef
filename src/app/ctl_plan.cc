#include "app/ctl_plan.h"

#include <memory>
#include <string>

#include "app/ctl_explain.h"
#include "app/ctl_simulate.h"
#include "app/local_run.h"

namespace efedllm {

void AddPlanCommand(CLI::App& root, int& exit_code) {
  auto simulate = std::make_shared<SimulateFlags>();
  CLI::App* command = root.add_subcommand(
      "plan",
      "Say who holds which layers, why, and how fast that should be: of a running coordinator\n"
      "(--explain), or of a cluster that need not exist (--simulate), by discrete events over the\n"
      "planner's and the scheduler's own rules.");
  command->footer(
      "Example: efedllm-ctl plan --simulate config/cluster-example.json --plot out.svg\n\n" +
      ClusterFileHelp());
  struct ExplainFlags {
    bool explain = false;
    std::string state_dir;
  };
  auto explain = std::make_shared<ExplainFlags>();
  CLI::Option_group* what = command->add_option_group("what", "One of");
  what->require_option(1);
  what->add_flag("--explain", explain->explain,
                 "Ask the running coordinator: nodes, links, stages as predicted and measured,\n"
                 "the bottleneck, who is standby and why, and what other layouts would give");
  command->add_option("--state-dir", explain->state_dir,
                      "The coordinator's; default: as efedllm-coord's");
  what->add_option(
      "--simulate", simulate->cluster,
      "A cluster file: print tokens per second, time to the first token, gaps between\n"
      "tokens, how busy stages and links are");
  command->add_option("--plot", simulate->plot, "Write a picture of it as well (SVG)");
  command->add_flag("--json", simulate->json, "Print all of it as one JSON object");
  OnCommand(*command, exit_code, [simulate, explain] {
    if (explain->explain) return RunExplain(explain->state_dir, simulate->json);
    return RunSimulate(*simulate);
  });
}

}  // namespace efedllm
