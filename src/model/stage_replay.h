// Replays stages: what layers make of sequences whose input rows are known, to the bit what a
// worker's stage made of them step by step (docs/numerics.md). What audits compare with.
#ifndef EFEDLLM_MODEL_STAGE_REPLAY_H_
#define EFEDLLM_MODEL_STAGE_REPLAY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cluster/stage_plan.h"
#include "layers/compute.h"
#include "model/model_config.h"
#include "model/stage_executor.h"
#include "model/tensor_loader.h"
#include "tensor/kv_type.h"
#include "tensor/matrix.h"

namespace efedllm {

// Runs whole sequences through a stage, in place, in steps of up to its limits' rows and spans.
// lengths: of the sequences, each from its first position on; rows: theirs, behind each other, [sum
// of lengths, d_model]. What the stage knew before is forgotten. before_step: asked between steps,
// may wait; an error ends it and is returned. Null: nobody is asked. Others as
// StageExecutor::Run.
absl::Status RunSequences(StageExecutor& stage, absl::Span<const uint32_t> lengths, MatrixRef rows,
                          const std::function<absl::Status()>& before_step);
// KV that RunSequences needs at most: a long sequence, what a step adds, and pages begun.
uint64_t KvTokensOfSequences(absl::Span<const uint32_t> lengths, const StepLimits& limits);

struct StageReplayOptions {
  ModelConfig config;
  // Of packed weights, that stay in memory from one replay to the next. What does not fit is loaded
  // layer by layer each time: one layer more is then in memory for as long as it computes.
  uint64_t weight_bytes = 0;
  uint32_t step_rows = 128;  // of one step: how long it is between two looks at before_step
};

struct ReplayHooks {
  // Asked between steps with the share that is done, 0 to 1. May wait, so that others go first. An
  // error (Cancelled) ends the replay. May be null.
  std::function<absl::Status(double share)> before_step;
  // After each layer: how many layers of the model the rows have passed then, and the rows, [sum of
  // lengths, d_model], borrowed for the call. May be null.
  std::function<void(uint32_t layers, ConstMatrixRef rows)> after_layer;
};

// One layer at a time goes over all rows of all sequences, so that streaming it pays and KV is that
// of one layer. One call at a time.
class StageReplay {
 public:
  // The tensors of one layer, as LoadStageTensors has them.
  using LayerSource = std::function<absl::StatusOr<std::vector<StageTensor>>(LayerRange layer)>;

  // compute is borrowed and outlives this.
  StageReplay(const StageReplayOptions& options, LayerSource source, Compute& compute);

  const ModelConfig& config() const { return options_.config; }

  // rows become what the layers make of them. InvalidArgument: layers that the model hasn't, or
  // lengths that don't make the rows; DataLoss: rows that are not finite; others of the source, the
  // hooks, and StageExecutor.
  absl::Status Run(LayerRange layers, KvType kv_type, absl::Span<const uint32_t> lengths,
                   MatrixRef rows, const ReplayHooks& hooks = {});

  uint64_t kept_bytes() const { return kept_bytes_; }

 private:
  absl::StatusOr<std::vector<StageTensor>> Layer(uint32_t layer);

  const StageReplayOptions options_;
  const LayerSource source_;
  Compute& compute_;
  std::map<uint32_t, std::vector<StageTensor>> kept_;
  uint64_t kept_bytes_ = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_STAGE_REPLAY_H_
