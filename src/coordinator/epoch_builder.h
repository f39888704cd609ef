// What an epoch is made of: hashed weights, assignments, pipelines. The slow and the real things
// that the EpochKeeper decides about.
#ifndef EFEDLLM_COORDINATOR_EPOCH_BUILDER_H_
#define EFEDLLM_COORDINATOR_EPOCH_BUILDER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/planner.h"
#include "cluster/stage_plan.h"
#include "cluster/step.h"
#include "coordinator/cluster_pipeline.h"
#include "coordinator/pipeline.h"
#include "coordinator/weight_server.h"
#include "layers/compute.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/tensor_hasher.h"
#include "model/weight_cache.h"
#include "net/credentials.h"
#include "store/database.h"
#include "svd/codec.h"
#include "tensor/kv_type.h"
#include "wire/cluster_wire.h"

namespace efedllm {

// All borrowed.
struct EpochParts {
  Database& database;
  const Transport& transport;
  const ModelFile& file;
  const ModelConfig& config;
  TensorHasher& hasher;
  WeightCache& cache;  // of weights for computing alone
  WeightServer& weights;
  HopInbox& inbox;
  Compute& compute;  // for computing alone
};

struct EpochOptions {
  StepLimits limits;
  CodecId codec = CodecId::kF32;
  KvType kv_type = KvType::kF32;
};

// Where a stage's node serves hops.
struct HopTarget {
  NodeId node;
  std::string address;
};

// One caller at a time.
class EpochBuilder {
 public:
  EpochBuilder(const EpochParts& parts, const EpochOptions& options)
      : parts_(parts), options_(options) {}

  // Where the last stage's frames come to. Before the first epoch over workers.
  void SetListenPort(int port) { listen_port_ = port; }

  // The planner's input, layer by layer.
  static absl::StatusOr<std::vector<LayerCost>> LayerCosts(const ModelConfig& config,
                                                           const ModelFile& file, KvType kv_type);

  absl::StatusOr<Epoch> NextEpoch();

  // What each stage's node is told, in the order of plan.AllStages(); its tensors are on offer from
  // then on. targets: of each stage. Reads the weights once where they were never hashed.
  absl::StatusOr<std::vector<Assignment>> Assignments(const StagePlan& plan,
                                                      const std::vector<HopTarget>& targets);

  // Frames are accepted from the plan's last stages and from those whose edge is relayed.
  void SetUpstreams(const StagePlan& plan);
  // targets: as for Assignments.
  std::shared_ptr<ClusterPipeline> OverWorkers(
      const StagePlan& plan, const std::vector<HopTarget>& targets,
      std::function<absl::Duration(size_t chain, size_t tokens)> estimate,
      std::function<void(const absl::Status&)> on_end);

  // All layers in this process. Waits for the last such pipeline to go.
  absl::StatusOr<std::shared_ptr<Pipeline>> Alone(const StagePlan& plan);

 private:
  const EpochParts parts_;
  const EpochOptions options_;
  int listen_port_ = 0;
  std::weak_ptr<Pipeline> alone_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_EPOCH_BUILDER_H_
