// The simulated coordinator: the real EpochKeeper, SwitchingPipeline, ClusterPipeline and
// ServingLoop over the real state database. What the daemon's threads do around them happens here
// in events.
#ifndef EFEDLLM_FAULTSIM_SIM_COORDINATOR_H_
#define EFEDLLM_FAULTSIM_SIM_COORDINATOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/epoch_keeper.h"
#include "coordinator/generation.h"
#include "coordinator/serving_loop.h"
#include "coordinator/switching_pipeline.h"
#include "efedllm/cluster.pb.h"
#include "faultsim/memory_disk.h"
#include "faultsim/sim_epoch_builder.h"
#include "faultsim/sim_hop.h"
#include "faultsim/world.h"
#include "prometheus/registry.h"

namespace efedllm::faultsim {

struct SimCoordinatorOptions {
  MembershipRules rules;
  PlannerRules planner;
  size_t standby = 0;
  ServingLimits limits;
  size_t max_queue = 16;
};

// What passes between the serving loop and the pipeline: never waits, and is where bugs of a
// serving layer are planted.
class WatchedPipeline final : public Pipeline {
 public:
  WatchedPipeline(World& world, SwitchingPipeline& pipeline) : world_(world), pipeline_(pipeline) {}

  absl::StatusOr<PipelineCapacity> Capacity() const override { return pipeline_.Capacity(); }
  absl::Status Submit(Step step, size_t chain, Matrix hidden) override;
  std::optional<StepResult> NextResult(absl::Duration timeout) override;
  void SetActiveSequences(size_t count) override { pipeline_.SetActiveSequences(count); }

  // Did each chain of the epoch get a step? With its first one it forgets what it does not need.
  bool all_stepped() const;
  // Since the last call, did a result come?
  bool TakeHadResult() { return std::exchange(had_result_, false); }

 private:
  World& world_;
  SwitchingPipeline& pipeline_;
  bool had_result_ = false;
  Epoch last_epoch_;  // of a step
  std::set<size_t> stepped_chains_;
  void ResumeTooFar(Step& step);

  // Of planted bugs.
  std::optional<StepResult> held_back_;
  std::set<SequenceId> too_far_;
};

class SimCoordinator {
 public:
  // disk is borrowed. on_turn: after each turn of the scheduler, for whoever reads generations.
  SimCoordinator(World& world, MemoryDisk& disk, const SimCoordinatorOptions& options,
                 std::function<void()> on_turn);
  SimCoordinator(const SimCoordinator&) = delete;
  SimCoordinator& operator=(const SimCoordinator&) = delete;

  void Start();
  // Everything in memory is gone, and what the disk did not sync may be.
  void Crash(bool silent);
  bool alive() const { return life_ != nullptr; }
  uint64_t life() const { return world_.coordinator.life; }

  // What the API would say to a request. Only while it is up.
  absl::StatusOr<std::shared_ptr<Generation>> Submit(GenerationInput input);
  absl::Time Now() const { return life_->clock.Now(); }
  void Drain(NodeId node);
  void Undrain(NodeId node);

  const ServingLoop& loop() const { return life_->loop; }
  bool all_stepped() const { return life_->watched.all_stepped(); }
  // That serves; 0: none.
  Epoch epoch() const {
    const absl::StatusOr<PipelineCapacity> capacity = life_->watched.Capacity();
    return capacity.ok() ? capacity->epoch : Epoch{0};
  }
  // Control streams of the node that are taken for it.
  size_t Links(NodeId node) const;
  EpochKeeper& keeper() { return life_->keeper; }
  uint64_t last_sequence() const { return life_->last_sequence; }

 private:
  class Link;
  struct Stream;
  struct Life {
    Life(SimCoordinator& coordinator, std::unique_ptr<Database> state);
    ~Life();

    const VirtualClock clock;
    const std::unique_ptr<Database> database;
    SimHopReceiver receiver;
    SimEpochBuilder builder;
    SwitchingPipeline pipeline;
    EpochKeeper keeper;
    WatchedPipeline watched;
    prometheus::Registry registry;
    SchedulerMetrics metrics;
    Speculator speculator;
    ServingLoop loop;

    std::vector<std::shared_ptr<Sequence>> incoming;
    std::vector<std::shared_ptr<Stream>> streams;
    uint64_t last_sequence = 0;
    size_t reported_active = 0;
    absl::Time outage_since;  // InfiniteFuture: it serves
    std::string reason;
    bool keeper_due = false;
    bool scheduler_due = false;
    VirtualTime keeper_at = absl::InfiniteDuration();
  };

  bool Accept(const Network::ConnectionPtr& connection);
  void OnControl(const std::shared_ptr<Stream>& stream, const std::string& bytes);
  absl::Status TakeMessage(Stream& stream, const v1::WorkerMessage& message);
  absl::Status TakeHello(Stream& stream, const v1::WorkerMessage& message);
  void Ping(Stream& stream);
  void OnFrame(const HopFrame& frame);
  HopFrame MutateResult(HopFrame frame) const;

  void WakeKeeper();
  void KeeperTurn();
  void WakeScheduler(absl::Duration delay);
  void SchedulerTurn();
  void FollowEpoch();
  void Tick();

  World& world_;
  MemoryDisk& disk_;
  const SimCoordinatorOptions options_;
  const std::function<void()> on_turn_;
  std::unique_ptr<Life> life_;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_SIM_COORDINATOR_H_
