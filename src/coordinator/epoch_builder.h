// What an epoch is made of: hashed weights, assignments, pipelines. The slow and the real things
// that the EpochKeeper decides about.
#ifndef EFEDLLM_COORDINATOR_EPOCH_BUILDER_H_
#define EFEDLLM_COORDINATOR_EPOCH_BUILDER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/planner.h"
#include "cluster/stage_plan.h"
#include "cluster/step.h"
#include "common/clock.h"
#include "coordinator/cluster_pipeline.h"
#include "coordinator/edge_codecs.h"
#include "coordinator/pipeline.h"
#include "coordinator/receipt_checker.h"
#include "coordinator/stored_plan.h"
#include "coordinator/weight_server.h"
#include "layers/compute.h"
#include "layers/kv_cache.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/tensor_hasher.h"
#include "model/weight_cache.h"
#include "net/credentials.h"
#include "store/database.h"
#include "tensor/kv_type.h"
#include "wire/cluster_wire.h"
#include "wire/handover_wire.h"

namespace efedllm {

// Every stage has KV memory for one page more than its plan says: the step that tries an epoch must
// fit beside the KV with which it goes on.
inline constexpr uint64_t kTrialKvTokens = KvCache::kPagePositions;

// One epoch over workers, to be served.
struct EpochOverWorkers {
  StagePlan plan;
  std::vector<HopTarget> targets;  // of each stage, in the order of plan.AllStages()
  std::vector<std::optional<ChainContinuation>> continues;  // by chain
  // See ClusterPipelineOptions.
  std::function<absl::Duration(size_t chain, size_t tokens)> estimate;
  std::function<void()> on_probed;
  std::function<void(const absl::Status&)> on_end;
};

// One caller at a time.
class EpochBuilder {
 public:
  virtual ~EpochBuilder() = default;

  // A number that no epoch had before.
  virtual absl::StatusOr<Epoch> NextEpoch() = 0;

  // What each stage's node is told, in the order of plan.AllStages(); its tensors are on offer from
  // then on. targets: of each stage. known: of nodes and links, by which edges get their codecs.
  // continues: see Assignment. Reads the weights once where they were never hashed.
  virtual absl::StatusOr<std::vector<Assignment>> Assignments(const StagePlan& plan,
                                                              const std::vector<HopTarget>& targets,
                                                              const PlannerInput& known,
                                                              Epoch continues) = 0;
  // Whether the edges of a plan that serves would be coded in another way by what is known now.
  virtual bool WouldRecode(const StagePlan& plan, const std::vector<HopTarget>& targets,
                           const PlannerInput& known) = 0;
  // The tensors of all layers; on offer from then on.
  virtual absl::StatusOr<Prefetch> AllTensors() = 0;

  // Frames are accepted from these alone.
  virtual void SetUpstreams(std::vector<NodeId> nodes) = 0;
  virtual std::shared_ptr<ClusterPipeline> OverWorkers(EpochOverWorkers epoch) = 0;

  // All layers in this process. Waits for the last such pipeline to go.
  virtual absl::StatusOr<std::shared_ptr<Pipeline>> Alone(const StagePlan& plan) = 0;

  // What serves, for the time after a restart.
  virtual absl::Status SavePlan(const StoredPlan& plan) = 0;
  virtual absl::StatusOr<std::optional<StoredPlan>> LoadPlan() = 0;
};

// All borrowed.
struct EpochParts {
  Database& database;
  const Transport& transport;
  const Clock& clock;
  const ModelFile& file;
  const ModelConfig& config;
  TensorHasher& hasher;
  WeightCache& cache;  // of weights for computing alone
  WeightServer& weights;
  EdgeCodecs& codecs;
  HopInbox& inbox;
  Compute& compute;                    // for computing alone
  ReceiptChecker* receipts = nullptr;  // null: nobody asks for any
};

struct EpochOptions {
  StepLimits limits;
  KvType kv_type = KvType::kF32;
};

// With this process's model, database and network.
class ClusterEpochBuilder final : public EpochBuilder {
 public:
  ClusterEpochBuilder(const EpochParts& parts, const EpochOptions& options)
      : parts_(parts), options_(options) {}

  // Where the last stage's frames come to. Before the first epoch over workers.
  void SetListenPort(int port) { listen_port_ = port; }

  // The planner's input, layer by layer.
  static absl::StatusOr<std::vector<LayerCost>> LayerCosts(const ModelConfig& config,
                                                           const ModelFile& file, KvType kv_type);

  absl::StatusOr<Epoch> NextEpoch() override;
  absl::StatusOr<std::vector<Assignment>> Assignments(const StagePlan& plan,
                                                      const std::vector<HopTarget>& targets,
                                                      const PlannerInput& known,
                                                      Epoch continues) override;
  bool WouldRecode(const StagePlan& plan, const std::vector<HopTarget>& targets,
                   const PlannerInput& known) override;
  absl::StatusOr<Prefetch> AllTensors() override;
  void SetUpstreams(std::vector<NodeId> nodes) override;
  std::shared_ptr<ClusterPipeline> OverWorkers(EpochOverWorkers epoch) override;
  absl::StatusOr<std::shared_ptr<Pipeline>> Alone(const StagePlan& plan) override;
  absl::Status SavePlan(const StoredPlan& plan) override;
  absl::StatusOr<std::optional<StoredPlan>> LoadPlan() override;

 private:
  void BeginReceipts(const EpochOverWorkers& epoch);

  const EpochParts parts_;
  const EpochOptions options_;
  int listen_port_ = 0;
  std::weak_ptr<Pipeline> alone_;
  // Of the last few epochs.
  std::map<Epoch, std::vector<Assignment>> assignments_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_EPOCH_BUILDER_H_
