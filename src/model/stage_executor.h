// Runs a stage: layers [first, last) over steps, with the KV state of the sequences. What workers
// run, what the coordinator runs when it computes alone, and what an audit will run.
#ifndef EFEDLLM_MODEL_STAGE_EXECUTOR_H_
#define EFEDLLM_MODEL_STAGE_EXECUTOR_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster/stage_plan.h"
#include "cluster/step.h"
#include "layers/compute.h"
#include "layers/kv_cache.h"
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
  // Each position's output is kept beside its KV, so that a replay can bring back the KV of a later
  // stage (Recall).
  bool keep_outputs = false;
};

class StageExecutor {
 public:
  // tensors: those of StageTensors(), in any order. compute (threads, kernels) is borrowed and
  // outlives this.
  static absl::StatusOr<std::unique_ptr<StageExecutor>> Create(
      const StageOptions& options, const std::vector<StageTensor>& tensors, Compute& compute);
  ~StageExecutor();

  const StageOptions& options() const;

  // Runs the layers over one step, in place. hidden: [step.tokens(), d_model] f32, borrowed. One
  // call at a time. The result of a row depends on its sequence's tokens alone: not on its batch
  // mates, the chunking, threads or ISA. InvalidArgument: the step is not valid (see step.h),
  // breaks the limits, or hidden has another shape; DataLoss: hidden has
  // values that are not finite, which no stage that works sends; ResourceExhausted: no KV page
  // left. The step has then changed nothing, except that its trims and forks may have happened.
  absl::Status Run(const Step& step, MatrixRef hidden);

  // A replay's step at a stage that has the KV of its spans: the trims happen and the forks to
  // sequences that are not there yet, and the KV stays. hidden: [step.tokens(), d_model], becomes
  // what Run once put out at these positions; or has no rows: nothing is asked for.
  // InvalidArgument: as in Run; FailedPrecondition: it has no KV of some position, or keeps no
  // outputs. Trims and forks may have happened then.
  absl::Status Recall(const Step& step, MatrixRef hidden);

  // All that the stage keeps of positions [first, first + tokens): KV of its layers, and outputs if
  // they are kept, tokens * StageKvBytesPerToken() bytes, appended to out. OutOfRange: it has not
  // all of them.
  absl::Status ExportKv(SequenceId sequence, uint32_t first, uint32_t tokens,
                        std::string& out) const;

  // Appends to the sequence, which ends at `first` (0: a new one), what an executor of the same
  // layers, KV type and keep_outputs has exported: it goes on as the other one would have, to the
  // bit. bytes may come from a peer: their size is checked, their values are not. InvalidArgument:
  // another size, positions beyond the limit, or the sequence ends elsewhere; ResourceExhausted: no
  // KV page left; nothing has changed then.
  absl::Status ImportKv(SequenceId sequence, uint32_t first, uint32_t tokens,
                        absl::string_view bytes);

  // All sequences that hold KV, in ascending order of their ids.
  std::vector<KvExtent> extents() const;

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

// Bytes that a stage of this many layers keeps per token position: KV, and outputs if it keeps
// them.
uint64_t StageKvBytesPerToken(const ModelConfig& config, KvType kv_type, uint32_t layers,
                              bool keep_outputs);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_STAGE_EXECUTOR_H_
