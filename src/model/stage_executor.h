// Runs a stage: layers [first, last) over steps, with the KV state of the sequences. What workers
// run, what the coordinator runs when it computes alone, and what an audit will run.
#ifndef EFEDLLM_MODEL_STAGE_EXECUTOR_H_
#define EFEDLLM_MODEL_STAGE_EXECUTOR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/stage_plan.h"
#include "cluster/step.h"
#include "layers/compute.h"
#include "model/model_config.h"
#include "model/tensor_loader.h"
#include "tensor/kv_type.h"
#include "tensor/matrix.h"

namespace efedllm {

struct StageOptions {
  ModelConfig config;
  LayerRange layers;
  uint64_t kv_tokens = 0;  // room for this many token positions, all sequences together
  KvType kv_type = KvType::kF32;
  StepLimits limits;
};

class StageExecutor {
 public:
  // tensors: those of StageTensors(), in any order. compute (threads, kernels) is borrowed and
  // outlives this.
  static absl::StatusOr<std::unique_ptr<StageExecutor>> Create(
      const StageOptions& options, const std::vector<StageTensor>& tensors, Compute& compute);
  ~StageExecutor();

  // Runs the layers over one step, in place. hidden: [step.tokens(), d_model] f32, borrowed. One
  // call at a time. The result of a row depends on its sequence's tokens alone: not on its batch
  // mates, the chunking, threads or ISA. InvalidArgument: the step is not valid (see step.h),
  // breaks the limits, or hidden has another shape or values that are not finite;
  // ResourceExhausted: no KV page left. The step has then changed nothing, except that its trims
  // and forks may have happened.
  absl::Status Run(const Step& step, MatrixRef hidden);

  // A real forward pass of one made-up token, whose KV is dropped again. Internal: the output is
  // not finite.
  absl::Status SelfTest();

  uint64_t sequences() const;       // that hold KV
  uint64_t kv_tokens_used() const;  // in whole pages
  uint64_t kv_tokens_total() const;

 private:
  struct State;
  explicit StageExecutor(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

// Bytes of KV that one layer keeps per token position.
uint64_t KvBytesPerToken(const ModelConfig& config, KvType kv_type);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_STAGE_EXECUTOR_H_
