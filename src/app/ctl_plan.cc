#include "app/ctl_plan.h"

#include <memory>

#include "app/ctl_simulate.h"
#include "app/local_run.h"

namespace efedllm {

void AddPlanCommand(CLI::App& root, int& exit_code) {
  auto simulate = std::make_shared<SimulateFlags>();
  CLI::App* command = root.add_subcommand(
      "plan",
      "Say who holds which layers. With --simulate of a cluster that need not exist: what it "
      "would\n"
      "do, by discrete events over the planner's and the scheduler's own rules.");
  command->footer(
      "Example: efedllm-ctl plan --simulate config/cluster-example.json --plot out.svg\n\n" +
      ClusterFileHelp());
  command
      ->add_option(
          "--simulate", simulate->cluster,
          "A cluster file: print tokens per second, time to the first token, gaps between\n"
          "tokens, how busy stages and links are")
      ->required();
  command->add_option("--plot", simulate->plot, "Write a picture of it as well (SVG)");
  command->add_flag("--json", simulate->json, "Print all of it as one JSON object");
  OnCommand(*command, exit_code, [simulate] { return RunSimulate(*simulate); });
}

}  // namespace efedllm
