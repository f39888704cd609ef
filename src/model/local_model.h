// A whole model in this process, embedding to logits, in one or more stages: what `efedllm-ctl
// eval` runs, and the reference that distributed runs are compared with.
#ifndef EFEDLLM_MODEL_LOCAL_MODEL_H_
#define EFEDLLM_MODEL_LOCAL_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cluster/step.h"
#include "layers/compute.h"
#include "model/embedding.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/stage_executor.h"
#include "tensor/matrix.h"

namespace efedllm {

struct LocalModelOptions {
  uint64_t kv_tokens = 0;          // 0: one sequence of the whole context
  std::vector<LayerRange> stages;  // empty: one stage of all layers; else contiguous and complete
  uint32_t max_tokens = 512;       // rows in one step
};

// One call at a time.
class LocalModel {
 public:
  // file and compute are borrowed and outlive this. Weights are packed into memory.
  static absl::StatusOr<std::unique_ptr<LocalModel>> Create(const ModelFile& file,
                                                            const LocalModelOptions& options,
                                                            Compute& compute);

  const ModelConfig& config() const { return config_; }

  // Runs one step through all stages. tokens: of the spans, span after span; logits: of every row,
  // [step.tokens(), vocab]. Errors as StageExecutor::Run and Embedding::Lookup.
  absl::Status Forward(const Step& step, absl::Span<const int32_t> tokens, MatrixRef logits);

  // Runs a sequence from its first position on, chunk tokens at a time (0: as many as a step
  // takes), and hands over the logits of each position in order. Nothing of it is kept.
  absl::Status Evaluate(
      absl::Span<const int32_t> tokens, uint32_t chunk,
      absl::FunctionRef<void(size_t position, absl::Span<const float> logits)> visit);

 private:
  LocalModel(ModelConfig config, const LocalModelOptions& options, Embedding embedding)
      : config_(std::move(config)), options_(options), embedding_(std::move(embedding)) {}

  const ModelConfig config_;
  const LocalModelOptions options_;
  const Embedding embedding_;
  std::vector<std::unique_ptr<StageExecutor>> stages_;
  std::unique_ptr<OutputHead> head_;
};

// The index of the largest value; the lowest of equals. values is not empty.
size_t ArgMax(absl::Span<const float> values);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_LOCAL_MODEL_H_
