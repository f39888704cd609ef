#include "app/ctl_incentive.h"

#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "app/local_run.h"
#include "app/population_plot.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "incentive/incentive_rules.h"
#include "incentive/penalty.h"
#include "incentive/population.h"

namespace efedllm {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 10;

absl::Status WithFile(const std::string& file, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(file, ": ", status.message()));
}

// --- rules ---

struct RulesFlags {
  std::string file;
  bool json = false;
  bool defaults = false;
};

nlohmann::json RulesJson(const IncentiveRules& rules) {
  nlohmann::json json = {{"digest", ToHex(IncentiveRulesDigest(rules))}};
  for (const IncentiveRuleField& field : IncentiveRuleFields()) {
    nlohmann::json& table = *field.table == 0 ? json : json[field.table];
    const uint64_t value = rules.*field.value;
    if (field.share) {
      table[field.key] = static_cast<double>(value) / static_cast<double>(kWhole);
    } else {
      table[field.key] = value;
    }
  }
  return json;
}

// What they come to, as comments behind them.
std::string Consequences(const IncentiveRules& rules) {
  const auto share = [](uint64_t ppm) {
    return static_cast<double>(ppm) / static_cast<double>(kWhole);
  };
  const double floor = share(rules.audit_floor_ppm);
  const double checked = share(rules.audit_recheck_ppm);
  return absl::StrFormat(
      "\n# SHA-256 of these rules: %s\n"
      "# A long proven node that begins to lie is found after at most %d bad chunks with 99 %%, or "
      "%d if all verifiers cover it.\n"
      "# A lie of such a node costs %.0f times the chunk's pay, or %.0f where a verifier might "
      "have covered it.\n",
      ToHex(IncentiveRulesDigest(rules)), BadChunksUntilFound(floor, 1, 0.99),
      BadChunksUntilFound(floor, checked, 0.99),
      share(PenaltyMultiplePpm(rules, rules.audit_floor_ppm, kWhole)),
      share(PenaltyMultiplePpm(rules, rules.audit_floor_ppm, rules.audit_recheck_ppm)));
}

absl::Status RunRules(const RulesFlags& flags) {
  ASSIGN_OR_RETURN(const IncentiveRules rules, ReadIncentiveRules(flags.file));
  if (flags.json) {
    std::printf("%s\n", RulesJson(rules).dump(2).c_str());
  } else if (flags.defaults) {
    std::fputs(IncentiveRulesToml(IncentiveRules(), /*commented_out=*/true).c_str(), stdout);
  } else {
    std::printf("%s%s", IncentiveRulesToml(rules, /*commented_out=*/false).c_str(),
                Consequences(rules).c_str());
  }
  return absl::OkStatus();
}

void AddRules(CLI::App& root, int& exit_code) {
  auto flags = std::make_shared<RulesFlags>();
  CLI::App* command = root.add_subcommand(
      "rules", "Print the rules that a file gives, or the defaults; or say what is wrong with it");
  CLI::Option* file = command->add_option("--file", flags->file, "As config/incentive.toml");
  command->add_flag("--json", flags->json, "Print one JSON object");
  command
      ->add_flag("--defaults", flags->defaults,
                 "Print the defaults with what each of them means, all commented out")
      ->excludes(file);
  OnCommand(*command, exit_code, [flags] { return RunRules(*flags); });
}

// --- simulate ---

struct SimulateFlags {
  std::string scenario;
  std::string rules;
  std::optional<uint64_t> seed;
  std::string out;
  bool json = false;
};

absl::Status RunSimulate(const SimulateFlags& flags) {
  ASSIGN_OR_RETURN(const IncentiveRules rules, ReadIncentiveRules(flags.rules));
  ASSIGN_OR_RETURN(const std::string text, ReadFile(flags.scenario, kMaxFileBytes));
  absl::StatusOr<PopulationScenario> scenario = ParsePopulationScenario(text);
  if (!scenario.ok()) return WithFile(flags.scenario, scenario.status());
  if (flags.seed) scenario->seed = *flags.seed;
  const PopulationResult result = SimulatePopulation(*scenario, rules);
  const std::string json = PopulationJson(result).dump(2) + "\n";
  if (!flags.out.empty()) {
    RETURN_IF_ERROR(MakeDirectories(flags.out, 0755));
    for (const PopulationPlot& plot : PopulationPlots(result)) {
      RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(flags.out, "/", plot.file), plot.svg, 0644));
    }
    RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(flags.out, "/result.json"), json, 0644));
  }
  std::fputs(flags.json ? json.c_str() : PopulationText(result).c_str(), stdout);
  const std::vector<std::string> problems = result.Problems();
  if (problems.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("these rules don't keep what they promise here: ", problems.front()));
}

std::string ScenarioHelp() {
  std::string help =
      "A scenario is TOML: seed, rounds, seconds-per-round, chunks-per-round (of one machine),\n"
      "tokens-per-chunk, gflops-per-chunk, cost (share of pay that honest computing costs), peers\n"
      "(share of audits that other nodes do), and [[group]]s with name, kind, machines and what "
      "the\n"
      "kind takes. Examples: config/scenarios. Kinds:\n";
  for (const PopulationKindInfo& kind : PopulationKinds()) {
    absl::StrAppendFormat(&help, "  %-15s %s\n", kind.name, kind.help);
  }
  return help;
}

void AddSimulate(CLI::App& root, int& exit_code) {
  auto flags = std::make_shared<SimulateFlags>();
  CLI::App* command = root.add_subcommand(
      "simulate",
      "Run the rules on a population of honest, lazy, flaky and malicious machines that need not\n"
      "exist: what they earn, when they are found. Exit code 1 if a kind of cheat pays, or an\n"
      "honest machine is put out");
  command->footer(ScenarioHelp());
  command->add_option("scenario", flags->scenario, "A file of it")->required();
  command->add_option("--rules", flags->rules, "Other rules, as config/incentive.toml");
  command->add_option("--seed", flags->seed, "Instead of the scenario's");
  command->add_option("--out", flags->out,
                      "Write rewards.svg, detection.svg, eviction.svg and result.json there");
  command->add_flag("--json", flags->json, "Print one JSON object");
  OnCommand(*command, exit_code, [flags] { return RunSimulate(*flags); });
}

}  // namespace

void AddIncentiveCommand(CLI::App& root, int& exit_code) {
  CLI::App* command = root.add_subcommand(
      "incentive", "The rules of rewards, trust and audits, and what they do to populations");
  command->require_subcommand(1);
  AddRules(*command, exit_code);
  AddSimulate(*command, exit_code);
}

}  // namespace efedllm
