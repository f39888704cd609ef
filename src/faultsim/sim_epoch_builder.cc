#include "faultsim/sim_epoch_builder.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "faultsim/checks.h"
#include "model/weights.h"

namespace efedllm::faultsim {

const std::vector<TensorSpec>& StageSpecs(TinyModel& model, LayerRange layers) {
  static std::map<uint64_t, std::vector<TensorSpec>>& known =
      *new std::map<uint64_t, std::vector<TensorSpec>>;
  const uint64_t key = uint64_t{layers.first} << 32 | layers.last;
  const auto there = known.find(key);
  if (there != known.end()) return there->second;
  auto specs = StageTensors(model.config(), model.served().file, layers);
  CHECK(specs.ok());
  // The bytes are everywhere already; the name stands for them.
  for (TensorSpec& spec : *specs)
    spec.chunks.assign(
        spec.chunk_count(),
        Sha256({reinterpret_cast<const uint8_t*>(spec.name.data()), spec.name.size()}));
  return known[key] = *std::move(specs);
}

absl::StatusOr<Epoch> SimEpochBuilder::NextEpoch() {
  ASSIGN_OR_RETURN(const Epoch epoch, efedllm::NextEpoch(database_));
  // Said to nobody, if the process died while it wrote.
  if (!world_.coordinator.up) return absl::UnavailableError("the process is gone");
  if (epoch <= world_.last_epoch) {
    world_.Violation("epochs grow", "epoch ", epoch.v, " came after ", world_.last_epoch.v);
  }
  world_.last_epoch = epoch;
  return epoch;
}

absl::StatusOr<std::vector<Assignment>> SimEpochBuilder::Assignments(
    const StagePlan& plan, const std::vector<HopTarget>& targets, const PlannerInput& /*known*/,
    Epoch continues) {
  std::vector<Assignment> assignments;
  for (const Chain& chain : plan.chains) {
    const size_t first = assignments.size();
    for (size_t i = 0; i < chain.stages.size(); ++i) {
      const HopTarget* target = &targets[first + i];
      Assignment& assignment = assignments.emplace_back();
      assignment.epoch = plan.epoch;
      assignment.layers = chain.stages[i].layers;
      assignment.continues = continues;
      assignment.stage = static_cast<uint32_t>(i);
      assignment.keep_outputs = chain.keeps_outputs && i + 1 < chain.stages.size();
      assignment.config = world_.model.config();
      assignment.kv_tokens = chain.kv_tokens + kTrialKvTokens;
      assignment.limits = world_.model.limits();
      const bool last = i + 1 == chain.stages.size();
      assignment.upstream = i == 0 ? kCoordinatorNode : target[-1].node;
      assignment.downstream = last ? kCoordinatorNode : target[1].node;
      assignment.downstream_address = last ? ":7070" : target[1].address;
    }
    if (world_.Is(Mutation::kOverlappingLayers) && chain.stages.size() > 1) {
      --assignments[first + 1].layers.first;
    }
  }
  for (Assignment& assignment : assignments) {
    assignment.tensors = StageSpecs(world_.model, assignment.layers);
  }
  CheckPlan(world_, plan, assignments);
  return assignments;
}

absl::StatusOr<Prefetch> SimEpochBuilder::AllTensors() {
  return Prefetch{StageSpecs(world_.model, {0, TinyModel::kLayers})};
}

std::shared_ptr<ClusterPipeline> SimEpochBuilder::OverWorkers(EpochOverWorkers epoch) {
  ClusterPipelineOptions options;
  options.capacity.epoch = epoch.plan.epoch;
  options.capacity.limits = world_.model.limits();
  options.d_model = world_.model.config().d_model;
  options.clock = &clock_;
  options.estimate = std::move(epoch.estimate);
  options.on_probed = std::move(epoch.on_probed);
  options.on_end = std::move(epoch.on_end);
  std::vector<ChainEdges> edges;
  auto target = epoch.targets.begin();
  for (const Chain& chain : epoch.plan.chains) {
    options.capacity.chains.push_back(
        {chain.stages.size(), chain.kv_tokens, epoch.continues[edges.size()]});
    edges.push_back({std::make_unique<SimFrameSender>(world_.network, world_.coordinator,
                                                      *world_.Find(target->node)),
                     NodesOf(chain)});
    target += static_cast<std::ptrdiff_t>(chain.stages.size());
  }
  auto pipeline = ClusterPipeline::Create(options, std::move(edges), {});
  pipeline_ = pipeline;
  return pipeline;
}

absl::StatusOr<std::shared_ptr<Pipeline>> SimEpochBuilder::Alone(const StagePlan&) {
  return absl::UnimplementedError("this coordinator does not compute");
}

absl::Status SimEpochBuilder::SavePlan(const StoredPlan& plan) {
  world_.Say("coordinator", "epoch ", plan.epoch.v, " serves");
  return efedllm::SavePlan(database_, plan);
}

absl::StatusOr<std::optional<StoredPlan>> SimEpochBuilder::LoadPlan() {
  return efedllm::LoadPlan(database_);
}

}  // namespace efedllm::faultsim
