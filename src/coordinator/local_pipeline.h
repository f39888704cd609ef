// All layers in this process: the coordinator computes alone.
#ifndef EFEDLLM_COORDINATOR_LOCAL_PIPELINE_H_
#define EFEDLLM_COORDINATOR_LOCAL_PIPELINE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/bounded_queue.h"
#include "coordinator/pipeline.h"
#include "layers/compute.h"
#include "model/model_file.h"
#include "model/stage_executor.h"
#include "model/tensor_hasher.h"
#include "model/tensor_loader.h"
#include "model/weight_cache.h"

namespace efedllm {

struct LocalPipelineOptions {
  Epoch epoch{1};
  uint64_t kv_tokens = 0;  // room for this many token positions, all sequences together
  KvType kv_type = KvType::kF32;
  StepLimits limits;  // max_position 0: the model's context
  // Where packed weights are kept for the next start, and who names them; borrowed. Null: nowhere.
  WeightCache* cache = nullptr;
  TensorHasher* hasher = nullptr;
};

// One stage, run by a thread of its own. Its one epoch serves from Create on. Weights that were not
// in the cache yet are written to it meanwhile, by a thread of the lowest priority.
class LocalPipeline final : public Pipeline {
 public:
  // Loads the weights and makes a real forward pass. compute is borrowed and outlives this.
  static absl::StatusOr<std::unique_ptr<LocalPipeline>> Create(const ModelConfig& config,
                                                               const ModelFile& file,
                                                               const LocalPipelineOptions& options,
                                                               Compute& compute);
  ~LocalPipeline() override;

  absl::StatusOr<PipelineCapacity> Capacity() const override;
  absl::Status Submit(Step step, size_t chain, Matrix hidden) override;
  std::optional<StepResult> NextResult(absl::Duration timeout) override;
  void SetActiveSequences(size_t) override {}

 private:
  struct Work {
    Step step;
    Matrix hidden;
    absl::Time submitted;
  };

  LocalPipeline(PipelineCapacity capacity, std::unique_ptr<StageExecutor> executor);
  void Run();
  void Keep(const std::vector<StageTensor>& tensors, WeightCache& cache, TensorHasher& hasher);

  const PipelineCapacity capacity_;
  const std::unique_ptr<StageExecutor> executor_;
  BoundedQueue<Work> work_;
  BoundedQueue<StepResult> results_;
  std::thread thread_;
  std::atomic<bool> stop_keeping_{false};
  std::thread keeper_;  // not joinable where there is nothing to keep
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_LOCAL_PIPELINE_H_
