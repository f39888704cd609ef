#include "faultsim/fault_simulation.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/epoch_builder.h"
#include "coordinator/state_database.h"
#include "faultsim/checks.h"
#include "faultsim/fault_injector.h"
#include "faultsim/sim_clients.h"
#include "faultsim/sim_coordinator.h"
#include "faultsim/sim_worker.h"
#include "faultsim/world.h"

namespace efedllm::faultsim {
namespace {

// All must have its answer so long after the last fault.
constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr uint64_t kMostHealingSteps = 60'000;
constexpr absl::Duration kMostFaultTime = absl::Seconds(60);
// To let what was freed be freed on the nodes, too.
constexpr absl::Duration kQuiet = absl::Milliseconds(500);
constexpr absl::Duration kMoreQuiet = absl::Seconds(2);

// What the page for an epoch's trial takes at most: of all layers' KV, and of what a stage keeps.
constexpr uint64_t kTrialBytes = kTrialKvTokens * (TinyModel::kLayers * 256 + 128);

NodeProfile Profile(Random& random) {
  NodeProfile profile;
  profile.threads = 1;
  profile.memory_bytes = kTrialBytes + 150'000 + random.Below(700'000);
  const double speed = 1 + random.Uniform() * 3;
  profile.read_bytes_per_second = speed * 1e9;
  profile.int8_ops_per_second = speed * 1e9;
  profile.f32_flops_per_second = speed * 1e8;
  return profile;
}

SimCoordinatorOptions Options(Random& random) {
  SimCoordinatorOptions options;
  options.rules.min_workers = 2;
  options.rules.left_out_for = {absl::Seconds(1), absl::Seconds(2), absl::Seconds(4)};
  options.rules.stage_progress = absl::Seconds(5);
  options.rules.replan_interval = absl::Seconds(3);
  options.rules.join_patience = absl::Seconds(2);
  options.rules.max_plan_delay = absl::Seconds(2);
  options.planner.kv_tokens_least = TinyModel::kContext;
  options.planner.kv_tokens_wanted = TinyModel::kContext * (1 + random.Below(3));
  options.planner.overhead_bytes = kTrialBytes;
  options.planner.layout = random.Below(4) == 0 ? Layout::kReplicas : Layout::kChain;
  options.planner.streams = 4;
  options.planner.row_bytes = 128;
  options.standby = static_cast<size_t>(random.Below(2));
  options.limits.max_sequences = 2 + static_cast<size_t>(random.Below(6));
  options.limits.max_step_tokens = 8 + static_cast<uint32_t>(random.Below(56));
  return options;
}

// The parts of one run.
struct Run {
  Run(const RunOptions& options, TinyModel& model, const std::string& dir,
      const MemoryDisk& template_disk)
      : world(options.seed, model, options.mutation),
        disk(dir),
        coordinator(world, disk, Options(world.random), [this] { clients.Read(); }),
        clients(world, coordinator, 2 + static_cast<size_t>(world.random.Below(4))),
        workers(MakeWorkers()),
        injector(world, coordinator, workers, disk, [this] { clients.OnCoordinatorCrash(); }) {
    world.log = options.log;
    disk.CopyFilesFrom(template_disk);
  }

  ~Run() { world.loop.Clear(); }

  std::vector<std::unique_ptr<SimWorker>> MakeWorkers() {
    std::vector<std::unique_ptr<SimWorker>> made;
    const uint64_t count = 3 + world.random.Below(3);
    for (uint64_t i = 1; i <= count; ++i) {
      const NodeProfile profile = Profile(world.random);
      world.memory_bytes[NodeId{i}] = profile.memory_bytes;
      made.push_back(std::make_unique<SimWorker>(world, NodeId{i}, profile));
    }
    return made;
  }

  // False: a violation, or nothing more to do until then.
  bool Step(VirtualTime until) {
    injector.BeforeEvent();
    const bool ran = world.loop.Step(until);
    injector.AfterEvent();
    CheckEachStep(world, coordinator, workers);
    return ran && world.violations.empty();
  }
  void Heal();

  World world;
  MemoryDisk disk;
  SimCoordinator coordinator;
  SimClients clients;
  std::vector<std::unique_ptr<SimWorker>> workers;
  FaultInjector injector;
};

// Every request must end, and then nothing must be left of them.
void Run::Heal() {
  injector.HealAll();
  clients.Finish();
  const VirtualTime until = world.loop.now() + kPatience;
  const uint64_t most = world.loop.steps() + kMostHealingSteps;
  while (!clients.idle() && world.loop.steps() < most && Step(until)) {
  }
  if (!world.violations.empty()) return;
  if (!clients.idle()) {
    return world.Violation(
        "all ends once faults do", "after ", absl::FormatDuration(kPatience),
        " without faults there wait ", clients.Waiting(), "; ",
        coordinator.alive() ? coordinator.keeper().Status().reason : "the coordinator is down");
  }
  VirtualTime quiet = std::max(world.loop.now(), world.coordinator.stopped_until);
  for (const auto& worker : workers) quiet = std::max(quiet, worker->process().stopped_until);
  quiet += kQuiet;
  while (Step(quiet)) {
  }
  if (!world.violations.empty()) return;
  // Perhaps an epoch is tried just now; a moment must come when nothing is.
  const VirtualTime last = world.loop.now() + kMoreQuiet;
  std::string left = WhatIsLeft(coordinator, workers);
  while (!left.empty() && Step(last)) left = WhatIsLeft(coordinator, workers);
  if (!left.empty()) world.Violation("nothing is left when all has ended", left);
}

}  // namespace

absl::StatusOr<std::unique_ptr<FaultSimulation>> FaultSimulation::Create(const std::string& dir) {
  std::unique_ptr<FaultSimulation> simulation(new FaultSimulation);
  simulation->dir_ = dir;
  ASSIGN_OR_RETURN(simulation->model_, TinyModel::Create(dir));
  simulation->template_disk_ = std::make_unique<MemoryDisk>(dir);
  ASSIGN_OR_RETURN(auto database, OpenStateDatabase(dir));
  return simulation;
}

RunResult FaultSimulation::Run(const RunOptions& options) {
  faultsim::Run run(options, *model_, dir_, *template_disk_);
  World& world = run.world;
  run.coordinator.Start();
  for (auto& worker : run.workers) worker->Start();
  run.clients.Start();
  while (world.loop.steps() < options.steps && run.Step(kMostFaultTime)) {
  }
  if (world.violations.empty()) run.Heal();

  RunResult result;
  result.seed = options.seed;
  if (!world.violations.empty()) result.violation = world.violations.front();
  result.steps = world.loop.steps();
  result.virtual_time = world.loop.now();
  result.faults = run.injector.faults();
  result.epochs = world.last_epoch.v;
  result.answered = run.clients.answered();
  result.refused = run.clients.refused();
  result.tokens = run.clients.tokens();
  result.coordinator_starts = world.coordinator.life;
  world.Say("verdict", result.violation.empty() ? "all checks held" : result.violation);
  return result;
}

}  // namespace efedllm::faultsim
