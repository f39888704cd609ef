#include "coordinator/epoch_builder.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "coordinator/local_pipeline.h"
#include "coordinator/state_database.h"
#include "model/weights.h"

namespace efedllm {
namespace {

constexpr size_t kMostEpochs = 4;  // that may be prepared and not opened yet

}  // namespace

absl::StatusOr<std::vector<LayerCost>> ClusterEpochBuilder::LayerCosts(const ModelConfig& config,
                                                                       const ModelFile& file,
                                                                       KvType kv_type) {
  std::vector<LayerCost> costs(config.layers);
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    ASSIGN_OR_RETURN(const std::vector<TensorSpec> tensors,
                     StageTensors(config, file, {layer, layer + 1}));
    for (const TensorSpec& tensor : tensors) costs[layer].weight_bytes += PackedBytes(tensor);
    costs[layer].flops_per_token = MatmulFlopsPerToken(config, tensors);
    costs[layer].kv_bytes_per_token = KvBytesPerToken(config, kv_type);
  }
  return costs;
}

absl::StatusOr<Epoch> ClusterEpochBuilder::NextEpoch() {
  return efedllm::NextEpoch(parts_.database);
}

absl::StatusOr<std::vector<Assignment>> ClusterEpochBuilder::Assignments(
    const StagePlan& plan, const std::vector<HopTarget>& targets, const PlannerInput& known,
    Epoch continues) {
  PlanCodecs codecs = parts_.codecs.Choose(plan, targets, known, nullptr);
  std::vector<Assignment> assignments;
  for (size_t chain_index = 0; chain_index < plan.chains.size(); ++chain_index) {
    const Chain& chain = plan.chains[chain_index];
    for (size_t i = 0; i < chain.stages.size(); ++i) {
      CHECK(assignments.size() < targets.size());
      const HopTarget* target = &targets[assignments.size()];
      Assignment& assignment = assignments.emplace_back();
      assignment.epoch = plan.epoch;
      assignment.layers = chain.stages[i].layers;
      assignment.continues = continues;
      assignment.stage = static_cast<uint32_t>(i);
      assignment.keep_outputs = chain.keeps_outputs && i + 1 < chain.stages.size();
      assignment.config = parts_.config;
      ASSIGN_OR_RETURN(std::vector<TensorSpec> tensors,
                       StageTensors(parts_.config, parts_.file, assignment.layers));
      ASSIGN_OR_RETURN(assignment.tensors, parts_.hasher.Hash(std::move(tensors)));
      parts_.weights.Offer(assignment.tensors);
      assignment.kv_tokens = chain.kv_tokens + kTrialKvTokens;
      assignment.limits = options_.limits;
      const EdgeCodec& in = codecs[chain_index][i];
      const EdgeCodec& out = codecs[chain_index][i + 1];
      assignment.upstream_codec = in.setting;
      assignment.codec = out.setting;
      assignment.upstream_basis = in.spec;
      assignment.downstream_basis = out.spec;
      assignment.kv_type = options_.kv_type;
      const bool from_us = i == 0 || chain.stages[i - 1].relayed;
      const bool to_us = i + 1 == chain.stages.size() || chain.stages[i].relayed;
      assignment.upstream = from_us ? kCoordinatorNode : target[-1].node;
      assignment.downstream = to_us ? kCoordinatorNode : target[1].node;
      // A worker knows the coordinator's host better than the coordinator does.
      assignment.downstream_address = to_us ? absl::StrCat(":", listen_port_) : target[1].address;
    }
  }
  parts_.codecs.Set(plan.epoch, std::move(codecs));
  assignments_[plan.epoch] = assignments;
  if (assignments_.size() > kMostEpochs) assignments_.erase(assignments_.begin());
  return assignments;
}

bool ClusterEpochBuilder::WouldRecode(const StagePlan& plan, const std::vector<HopTarget>& targets,
                                      const PlannerInput& known) {
  const PlanCodecs present = parts_.codecs.Of(plan.epoch);
  if (present.size() != plan.chains.size()) return false;
  const PlanCodecs now = parts_.codecs.Choose(plan, targets, known, &present);
  for (size_t c = 0; c < now.size(); ++c) {
    for (size_t i = 0; i < now[c].size(); ++i) {
      if (now[c][i].setting == present[c][i].setting) continue;
      spdlog::info("boundary {}: {} instead of {} is due",
                   i == 0 ? 0 : plan.chains[c].stages[i - 1].layers.last,
                   CodecLabel(now[c][i].setting), CodecLabel(present[c][i].setting));
      return true;
    }
  }
  return false;
}

absl::StatusOr<Prefetch> ClusterEpochBuilder::AllTensors() {
  ASSIGN_OR_RETURN(std::vector<TensorSpec> tensors,
                   StageTensors(parts_.config, parts_.file, {0, parts_.config.layers}));
  Prefetch prefetch;
  ASSIGN_OR_RETURN(prefetch.tensors, parts_.hasher.Hash(std::move(tensors)));
  parts_.weights.Offer(prefetch.tensors);
  return prefetch;
}

void ClusterEpochBuilder::SetUpstreams(std::vector<NodeId> nodes) {
  parts_.inbox.receiver().SetUpstreams(std::move(nodes));
}

void ClusterEpochBuilder::BeginReceipts(const EpochOverWorkers& epoch) {
  const auto assigned = assignments_.find(epoch.plan.epoch);
  if (parts_.receipts == nullptr || assigned == assignments_.end()) return;
  std::vector<ReceiptChain> chains;
  auto target = epoch.targets.begin();
  auto assignment = assigned->second.begin();
  for (size_t c = 0; c < epoch.plan.chains.size(); ++c) {
    ReceiptChain& chain = chains.emplace_back();
    if (epoch.continues[c]) chain.replayed = epoch.continues[c]->lost;
    for (size_t i = 0; i < epoch.plan.chains[c].stages.size(); ++i, ++target, ++assignment) {
      auto stage = std::make_shared<ReceiptStage>();
      stage->node = target->node;
      stage->address = target->address;
      stage->chain = static_cast<uint32_t>(c);
      stage->assignment = *assignment;
      stage->manifest = ManifestOf(*assignment);
      chain.stages.push_back(std::move(stage));
    }
  }
  parts_.receipts->Begin(epoch.plan.epoch, std::move(chains));
}

std::shared_ptr<ClusterPipeline> ClusterEpochBuilder::OverWorkers(EpochOverWorkers epoch) {
  BeginReceipts(epoch);
  ClusterPipelineOptions options;
  options.capacity.epoch = epoch.plan.epoch;
  options.capacity.limits = options_.limits;
  options.d_model = parts_.config.d_model;
  options.clock = &parts_.clock;
  options.receipts = parts_.receipts;
  options.estimate = std::move(epoch.estimate);
  options.on_probed = std::move(epoch.on_probed);
  options.on_end = std::move(epoch.on_end);
  const auto open = [this](const HopTarget& target) {
    return HopSender::Open(parts_.transport, target.address, target.node);
  };
  const PlanCodecs codecs = parts_.codecs.Of(epoch.plan.epoch);
  CHECK(codecs.size() == epoch.plan.chains.size());
  std::vector<ChainEdges> edges;
  std::vector<RelayedEdge> relayed;
  auto target = epoch.targets.begin();
  for (const Chain& chain : epoch.plan.chains) {
    options.capacity.chains.push_back(
        {chain.stages.size(), chain.kv_tokens, epoch.continues[edges.size()]});
    edges.push_back({open(*target), NodesOf(chain), codecs[edges.size()]});
    for (const Stage& stage : chain.stages) {
      ++target;
      if (stage.relayed) relayed.push_back({stage.node, open(*target), edges.size() - 1});
    }
  }
  return ClusterPipeline::Open(options, std::move(edges), std::move(relayed), parts_.inbox);
}

absl::Status ClusterEpochBuilder::SavePlan(const StoredPlan& plan) {
  return efedllm::SavePlan(parts_.database, plan);
}

absl::StatusOr<std::optional<StoredPlan>> ClusterEpochBuilder::LoadPlan() {
  return efedllm::LoadPlan(parts_.database);
}

absl::StatusOr<std::shared_ptr<Pipeline>> ClusterEpochBuilder::Alone(const StagePlan& plan) {
  // Its steps in flight end soon, but it computes with our threads until then.
  for (int i = 0; !alone_.expired(); ++i) {
    if (i == 3000) return absl::UnavailableError("the coordinator's last epoch does not end");
    absl::SleepFor(absl::Milliseconds(10));
  }
  LocalPipelineOptions options;
  options.epoch = plan.epoch;
  options.kv_tokens = plan.chains.front().kv_tokens;
  options.kv_type = options_.kv_type;
  options.limits = options_.limits;
  options.cache = &parts_.cache;
  options.hasher = &parts_.hasher;
  ASSIGN_OR_RETURN(std::shared_ptr<Pipeline> pipeline,
                   LocalPipeline::Create(parts_.config, parts_.file, options, parts_.compute));
  alone_ = pipeline;
  return pipeline;
}

}  // namespace efedllm
