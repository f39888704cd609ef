// What the real EpochKeeper builds epochs of, in the simulated world.
#ifndef EFEDLLM_FAULTSIM_SIM_EPOCH_BUILDER_H_
#define EFEDLLM_FAULTSIM_SIM_EPOCH_BUILDER_H_

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "common/clock.h"
#include "coordinator/epoch_builder.h"
#include "coordinator/state_database.h"
#include "coordinator/stored_plan.h"
#include "faultsim/sim_hop.h"
#include "faultsim/world.h"

namespace efedllm::faultsim {

// What stages of these layers hold in memory.
const std::vector<TensorSpec>& StageSpecs(TinyModel& model, LayerRange layers);

class SimEpochBuilder final : public EpochBuilder {
 public:
  // All borrowed. upstreams: whose frames come in.
  SimEpochBuilder(World& world, Database& database, const Clock& clock,
                  std::function<void(std::vector<NodeId>)> upstreams)
      : world_(world), database_(database), clock_(clock), upstreams_(std::move(upstreams)) {}

  absl::StatusOr<Epoch> NextEpoch() override;
  absl::StatusOr<std::vector<Assignment>> Assignments(const StagePlan& plan,
                                                      const std::vector<HopTarget>& targets,
                                                      const PlannerInput& known,
                                                      Epoch continues) override;
  bool WouldRecode(const StagePlan&, const std::vector<HopTarget>&, const PlannerInput&) override {
    return false;
  }
  absl::StatusOr<Prefetch> AllTensors() override;
  void SetUpstreams(std::vector<NodeId> nodes) override { upstreams_(std::move(nodes)); }
  std::shared_ptr<ClusterPipeline> OverWorkers(EpochOverWorkers epoch) override;
  absl::StatusOr<std::shared_ptr<Pipeline>> Alone(const StagePlan& plan) override;
  absl::Status SavePlan(const StoredPlan& plan) override;
  absl::StatusOr<std::optional<StoredPlan>> LoadPlan() override;

  // That frames for the coordinator go to; the last one made.
  std::shared_ptr<ClusterPipeline> pipeline() const { return pipeline_.lock(); }

 private:
  World& world_;
  Database& database_;
  const Clock& clock_;
  const std::function<void(std::vector<NodeId>)> upstreams_;
  std::weak_ptr<ClusterPipeline> pipeline_;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_SIM_EPOCH_BUILDER_H_
