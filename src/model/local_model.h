// A whole model in this process, embedding to logits, in one or more stages: what `efedllm-ctl
// eval` and `bench` run, and the reference that distributed runs are compared with.
#ifndef EFEDLLM_MODEL_LOCAL_MODEL_H_
#define EFEDLLM_MODEL_LOCAL_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
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
#include "tensor/kv_type.h"
#include "tensor/matrix.h"

namespace efedllm {

struct LocalModelOptions {
  uint64_t kv_tokens = 0;          // 0: one sequence of the whole context
  std::vector<LayerRange> stages;  // empty: one stage of all layers; else contiguous and complete
  uint32_t max_tokens = 512;       // rows in one step
  uint32_t max_sequences = 64;     // in one step
  uint32_t context = 0;            // positions that a sequence may have; 0: the model's,
  uint32_t most_context = 0;       // but at most these; 0: no bound
  std::optional<KvType> kv_type = KvType::kF32;  // nullopt: what AutoKvType says
};

// Between two stages: the activations after so many layers, [step.tokens(), d_model], to look at or
// to change. Called where there are some. An error ends the step.
using BoundaryHook =
    std::function<absl::Status(const Step& step, uint32_t layers, MatrixRef hidden)>;

// One call at a time.
class LocalModel {
 public:
  // file and compute are borrowed and outlive this. Weights are packed into memory.
  static absl::StatusOr<std::unique_ptr<LocalModel>> Create(const ModelFile& file,
                                                            const LocalModelOptions& options,
                                                            Compute& compute);

  const ModelConfig& config() const { return config_; }
  const LocalModelOptions& options() const { return options_; }  // with nothing left to default

  // From the next step on; empty: none.
  void SetBoundaryHook(BoundaryHook hook) { hook_ = std::move(hook); }

  // Runs one step through all stages. tokens: of the spans, span after span; hidden, borrowed: what
  // the last stage makes of them, [step.tokens(), d_model]. Errors as StageExecutor::Run,
  // Embedding::Lookup and the hook.
  absl::Status RunStages(const Step& step, absl::Span<const int32_t> tokens, MatrixRef hidden);
  // The output head. hidden: [n, d_model]; logits: [n, vocab]. Borrowed.
  void Logits(ConstMatrixRef hidden, MatrixRef logits) { head_->Logits(hidden, logits); }

  // Both, for every row.
  absl::Status Forward(const Step& step, absl::Span<const int32_t> tokens, MatrixRef logits);

  // Runs a sequence from its first position on, chunk tokens at a time (0: as many as a step
  // takes), and hands over the logits of each position in order. Nothing of it is kept.
  using LogitsVisitor = absl::FunctionRef<void(size_t position, absl::Span<const float> logits)>;
  absl::Status Evaluate(absl::Span<const int32_t> tokens, uint32_t chunk, LogitsVisitor visit);

 private:
  LocalModel(ModelConfig config, const LocalModelOptions& options, Embedding embedding)
      : config_(std::move(config)), options_(options), embedding_(std::move(embedding)) {}
  void VisitLogits(ConstMatrixRef hidden, size_t first, LogitsVisitor visit);

  const ModelConfig config_;
  const LocalModelOptions options_;
  const Embedding embedding_;
  std::vector<std::unique_ptr<StageExecutor>> stages_;
  std::unique_ptr<OutputHead> head_;
  BoundaryHook hook_;
};

// Layers split into so many stages, as evenly as possible: the first ones have one more.
// InvalidArgument: fewer layers than stages, or no stage.
absl::StatusOr<std::vector<LayerRange>> EqualStages(uint32_t layers, uint32_t stages);

// The index of the largest value; the lowest of equals. values is not empty.
size_t ArgMax(absl::Span<const float> values);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_LOCAL_MODEL_H_
