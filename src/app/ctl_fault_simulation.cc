#include "app/ctl_fault_simulation.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "faultsim/fault_simulation.h"

namespace efedllm {
namespace {

using faultsim::FaultSimulation;
using faultsim::RunOptions;
using faultsim::RunResult;

constexpr uint64_t kMostSeeds = 100'000'000;

struct SimulateFaultsFlags {
  std::string seed;   // of one run, with its log
  std::string seeds;  // "A..B"
  uint64_t steps = 1000;
  std::string mutation;
  bool json = false;
  bool quiet = false;
};

struct Seeds {
  uint64_t first = 0;
  uint64_t last = 0;
};

absl::StatusOr<Seeds> ParseSeeds(const SimulateFaultsFlags& flags) {
  Seeds seeds;
  if (!flags.seed.empty()) {
    if (!absl::SimpleAtoi(flags.seed, &seeds.first)) {
      return absl::InvalidArgumentError("--seed takes a number");
    }
    seeds.last = seeds.first;
    return seeds;
  }
  const size_t dots = flags.seeds.find("..");
  if (dots == std::string::npos || !absl::SimpleAtoi(flags.seeds.substr(0, dots), &seeds.first) ||
      !absl::SimpleAtoi(flags.seeds.substr(dots + 2), &seeds.last) || seeds.last < seeds.first ||
      seeds.last - seeds.first >= kMostSeeds) {
    return absl::InvalidArgumentError("give --seed N, or --seeds A..B with A at most B");
  }
  return seeds;
}

// Removed at the end, with the model in it.
class TemporaryFolder {
 public:
  static absl::StatusOr<std::unique_ptr<TemporaryFolder>> Create() {
    std::error_code error;
    std::string path = std::filesystem::temp_directory_path(error).string() + "/efedllm-sim-XXXXXX";
    if (error || mkdtemp(path.data()) == nullptr) return ErrnoStatus(errno, "make a folder", path);
    return std::unique_ptr<TemporaryFolder>(new TemporaryFolder(std::move(path)));
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

nlohmann::json ToJson(const RunResult& result) {
  return {{"seed", result.seed},
          {"violation", result.violation},
          {"steps", result.steps},
          {"virtual_seconds", absl::ToDoubleSeconds(result.virtual_time)},
          {"faults", result.faults},
          {"epochs", result.epochs},
          {"answered", result.answered},
          {"refused", result.refused},
          {"tokens", result.tokens},
          {"coordinator_starts", result.coordinator_starts}};
}

void Print(const RunResult& result) {
  std::printf(
      "seed %llu: %llu steps in %.2f s of virtual time, %llu faults, %llu epochs, %llu answers, "
      "%llu "
      "tokens\n",
      static_cast<unsigned long long>(result.seed), static_cast<unsigned long long>(result.steps),
      absl::ToDoubleSeconds(result.virtual_time), static_cast<unsigned long long>(result.faults),
      static_cast<unsigned long long>(result.epochs),
      static_cast<unsigned long long>(result.answered),
      static_cast<unsigned long long>(result.tokens));
  std::printf("verdict: %s\n",
              result.violation.empty() ? "all checks held" : result.violation.c_str());
}

// Many seeds: only what fails is told, and the sums.
nlohmann::json Summary(const Seeds& seeds, const nlohmann::json& failed, uint64_t steps,
                       uint64_t faults) {
  return {{"first_seed", seeds.first},
          {"seeds", seeds.last - seeds.first + 1},
          {"steps", steps},
          {"faults", faults},
          {"failed", failed}};
}

absl::StatusOr<bool> RunSimulateFaults(const SimulateFaultsFlags& flags) {
  ASSIGN_OR_RETURN(const Seeds seeds, ParseSeeds(flags));
  RunOptions options;
  options.steps = flags.steps;
  if (!flags.mutation.empty()) {
    const auto mutation = faultsim::FindMutation(flags.mutation);
    if (!mutation) {
      std::vector<std::string> names;
      for (const auto& info : faultsim::AllMutations()) names.emplace_back(info.name);
      return absl::InvalidArgumentError(
          absl::StrCat("--mutation is one of ", absl::StrJoin(names, ", ")));
    }
    options.mutation = *mutation;
  }
  const bool one = seeds.first == seeds.last;
  if (one && !flags.json && !flags.quiet) {
    options.log = [](const std::string& line) { std::puts(line.c_str()); };
  }
  // What the product logs of simulated faults would drown the rest.
  spdlog::set_level(spdlog::level::off);
  ASSIGN_OR_RETURN(const auto folder, TemporaryFolder::Create());
  ASSIGN_OR_RETURN(const auto simulation, FaultSimulation::Create(folder->path()));
  nlohmann::json failed = nlohmann::json::array();
  uint64_t steps = 0, faults = 0;
  RunResult result;
  for (uint64_t seed = seeds.first; seed <= seeds.last; ++seed) {
    options.seed = seed;
    result = simulation->Run(options);
    steps += result.steps;
    faults += result.faults;
    if (result.violation.empty()) continue;
    failed.push_back(ToJson(result));
    if (one || flags.json) continue;
    std::printf("seed %llu FAILED: %s\n", static_cast<unsigned long long>(seed),
                result.violation.c_str());
    std::fflush(stdout);
  }
  const nlohmann::json summary = one ? ToJson(result) : Summary(seeds, failed, steps, faults);
  if (flags.json) {
    std::printf("%s\n", summary.dump().c_str());
  } else if (one) {
    Print(result);
  } else {
    std::printf("%llu seeds from %llu, %llu steps, %llu faults: %zu failed\n",
                static_cast<unsigned long long>(seeds.last) - seeds.first + 1,
                static_cast<unsigned long long>(seeds.first),
                static_cast<unsigned long long>(steps), static_cast<unsigned long long>(faults),
                failed.size());
  }
  return failed.empty();
}

}  // namespace

void AddSimulateCommand(CLI::App& root, int& exit_code) {
  auto flags = std::make_shared<SimulateFaultsFlags>();
  CLI::App* command = root.add_subcommand(
      "simulate",
      "Run coordinator, workers and clients in a simulated world with faults, from a seed");
  command->add_option("--seed", flags->seed, "One run, with a log of what happens in it");
  command->add_option("--seeds", flags->seeds, "Many runs: A..B; prints those that fail");
  command->add_option("--steps", flags->steps, "Events of a run in which faults happen")
      ->capture_default_str();
  command->add_option("--mutation", flags->mutation,
                      "Plant a bug, to see that it is found (docs/simulation.md)");
  command->add_flag("--json", flags->json, "Print JSON");
  command->add_flag("--quiet", flags->quiet, "No log, only the verdict");
  command->callback([flags, &exit_code] {
    const absl::StatusOr<bool> held = RunSimulateFaults(*flags);
    if (!held.ok()) {
      std::fprintf(stderr, "error: %s\n", std::string(held.status().message()).c_str());
    }
    exit_code = held.ok() && *held ? 0 : 1;
  });
}

}  // namespace efedllm
