#include "faultsim/sim_coordinator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace efedllm::faultsim {
namespace {

// How often the threads look around though nothing happened.
constexpr absl::Duration kTick = absl::Milliseconds(100);
// The head and the samplers, for one step.
constexpr absl::Duration kHeadTime = absl::Microseconds(150);
constexpr absl::Duration kOutageAdmission = absl::Seconds(5);
constexpr absl::Duration kOutagePatience = absl::Seconds(20);
constexpr absl::Duration kStartTime = absl::Milliseconds(50);

}  // namespace

SimCoordinator::SimCoordinator(World& world, MemoryDisk& disk, const SimCoordinatorOptions& options,
                               std::function<void()> on_turn)
    : world_(world), disk_(disk), options_(options), on_turn_(std::move(on_turn)) {
  world_.coordinator.node = kCoordinatorNode;
  world_.coordinator.name = "coordinator";
  world_.network.Listen(world_.coordinator,
                        [this](const auto& connection) { return Accept(connection); });
}

SimCoordinator::Life::Life(SimCoordinator& coordinator, std::unique_ptr<Database> state)
    : clock(coordinator.world_.loop, coordinator.world_.coordinator),
      database(std::move(state)),
      receiver(clock, [&coordinator](const HopFrame& frame) { coordinator.OnFrame(frame); }),
      builder(coordinator.world_, *database, clock,
              [this](std::vector<NodeId> nodes) { receiver.SetUpstreams(std::move(nodes)); }),
      pipeline([this](size_t active) { keeper.SetActiveSequences(active); }),
      keeper(clock, builder, pipeline,
             [&] {
               EpochKeeperOptions options;
               options.rules = coordinator.options_.rules;
               options.planner = coordinator.options_.planner;
               options.standby = coordinator.options_.standby;
               options.layers = coordinator.world_.model.costs();
               return options;
             }()),
      watched(coordinator.world_, pipeline),
      metrics(registry),
      speculator(nullptr, registry),
      loop(clock, coordinator.world_.model.served(), watched, coordinator.options_.limits,
           speculator, metrics, StepObservers()),
      outage_since(clock.Now()) {}

SimCoordinator::Life::~Life() = default;

void SimCoordinator::Start() {
  if (life_ != nullptr) return;
  Process& process = world_.coordinator;
  process.up = true;
  ++process.life;
  process.stopped_until = process.busy_until = absl::ZeroDuration();
  world_.Say(process.name, "starts");
  absl::StatusOr<std::unique_ptr<Database>> database = OpenStateDatabase(disk_.folder());
  if (!process.up) return;  // it died while it opened its database
  if (!database.ok()) {
    world_.Say(process.name, "can't open its state: ", database.status().message());
    if (absl::IsDataLoss(database.status()) ||
        absl::StrContains(database.status().message(), "malformed")) {
      world_.Violation("the state survives crashes", database.status().message());
    }
    process.up = false;
    world_.loop.After(absl::Seconds(1), nullptr, [this] { Start(); });
    return;
  }
  life_ = std::make_unique<Life>(*this, *std::move(database));
  world_.loop.After(kStartTime, &process, [this] {
    WakeKeeper();
    Tick();
  });
}

void SimCoordinator::Crash(bool silent) {
  Process& process = world_.coordinator;
  world_.Say(process.name, silent ? "loses power" : "is killed");
  world_.network.OnCrash(process, silent);
  process.up = false;
  disk_.Freeze();
  life_.reset();
  disk_.Recover(world_.random);
}

void SimCoordinator::Tick() {
  if (const auto pipeline = life_->builder.pipeline()) pipeline->OnTick();
  WakeKeeper();
  WakeScheduler(absl::ZeroDuration());
  world_.loop.After(kTick, &world_.coordinator, [this] { Tick(); });
}

void SimCoordinator::OnFrame(const HopFrame& frame) {
  const auto pipeline = life_->builder.pipeline();
  if (pipeline == nullptr) return;
  pipeline->OnFrame(MutateResult(frame));
  WakeScheduler(absl::ZeroDuration());
  if (pipeline->probed()) WakeKeeper();
}

void SimCoordinator::WakeKeeper() {
  if (std::exchange(life_->keeper_due, true)) return;
  world_.loop.After(absl::Microseconds(50), &world_.coordinator, [this] { KeeperTurn(); });
}

void SimCoordinator::KeeperTurn() {
  Life& life = *life_;
  life.keeper_due = false;
  const absl::Time next = life.keeper.Turn();
  if (!world_.coordinator.up) return;
  WakeScheduler(absl::ZeroDuration());
  if (next <= life.clock.Now()) return WakeKeeper();
  const VirtualTime at = world_.loop.now() + (next - life.clock.Now());
  if (next - life.clock.Now() > kTick || at >= life.keeper_at) return;  // a tick comes before
  life.keeper_at = at;
  world_.loop.At(at, &world_.coordinator, [this] {
    life_->keeper_at = absl::InfiniteDuration();
    WakeKeeper();
  });
}

void SimCoordinator::WakeScheduler(absl::Duration delay) {
  if (std::exchange(life_->scheduler_due, true)) return;
  world_.loop.After(delay, &world_.coordinator, [this] { SchedulerTurn(); });
}

// A round of Scheduler's thread.
void SimCoordinator::SchedulerTurn() {
  Life& life = *life_;
  life.scheduler_due = false;
  for (auto& sequence : std::exchange(life.incoming, {})) life.loop.Add(std::move(sequence));
  FollowEpoch();
  life.loop.SendSteps();
  if (!world_.coordinator.up) return;
  life.loop.TakeStep();
  const size_t active = life.loop.holding_kv();
  if (active != std::exchange(life.reported_active, active)) {
    life.pipeline.SetActiveSequences(active);
    if (active == 0) WakeKeeper();
  }
  on_turn_();
  if (world_.coordinator.up && life.watched.TakeHadResult()) WakeScheduler(kHeadTime);
}

void SimCoordinator::FollowEpoch() {
  Life& life = *life_;
  const absl::Status serves = life.loop.FollowEpoch();
  const absl::Time now = life.clock.Now();
  if (serves.ok()) {
    life.outage_since = absl::InfiniteFuture();
    return;
  }
  life.reason = std::string(serves.message());
  if (life.outage_since == absl::InfiniteFuture()) life.outage_since = now;
  if (now - life.outage_since > kOutagePatience) {
    life.loop.FailWaiting(absl::UnavailableError("nothing served for too long"));
  }
}

absl::StatusOr<std::shared_ptr<Generation>> SimCoordinator::Submit(GenerationInput input) {
  Life& life = *life_;
  if (life.outage_since != absl::InfiniteFuture() &&
      life.clock.Now() - life.outage_since > kOutageAdmission) {
    return absl::UnavailableError(life.reason);
  }
  if (life.incoming.size() + life.loop.waiting() >= options_.max_queue) {
    return absl::ResourceExhaustedError("the queue is full");
  }
  auto generation = std::make_shared<Generation>(1);
  life.incoming.push_back(std::make_shared<Sequence>(SequenceId{++life.last_sequence}, 0,
                                                     std::move(input), generation,
                                                     *world_.model.served().tokenizer));
  life.incoming.back()->arrived = life.clock.Now();
  WakeScheduler(absl::ZeroDuration());
  return generation;
}

void SimCoordinator::Drain(NodeId node) {
  world_.Say("operator", "drains worker ", node.v);
  life_->keeper.Drain(node);
  WakeKeeper();
}

void SimCoordinator::Undrain(NodeId node) {
  world_.Say("operator", "takes worker ", node.v, " back");
  life_->keeper.Undrain(node);
  WakeKeeper();
}

}  // namespace efedllm::faultsim
