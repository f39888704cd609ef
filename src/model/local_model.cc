#include "model/local_model.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr SequenceId kEvaluated{1};

StageOptions OptionsOf(const ModelConfig& config, const LocalModelOptions& options,
                       LayerRange layers) {
  StageOptions stage;
  stage.config = config;
  stage.layers = layers;
  stage.kv_tokens = options.kv_tokens == 0 ? config.context : options.kv_tokens;
  stage.limits.max_tokens = options.max_tokens;
  stage.limits.max_position = config.context;
  return stage;
}

absl::Status CheckComplete(const std::vector<LayerRange>& stages, uint32_t layers) {
  uint32_t next = 0;
  for (const LayerRange& stage : stages) {
    if (stage.first != next || stage.last <= stage.first) break;
    next = stage.last;
  }
  if (next == layers) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the stages must hold all ", layers, " layers, one after the other"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalModel>> LocalModel::Create(const ModelFile& file,
                                                               const LocalModelOptions& options,
                                                               Compute& compute) {
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromGguf(file));
  LocalModelOptions complete = options;
  if (complete.stages.empty()) complete.stages = {{0, config.layers}};
  RETURN_IF_ERROR(CheckComplete(complete.stages, config.layers));
  ASSIGN_OR_RETURN(Embedding embedding, Embedding::Create(config, file));
  std::unique_ptr<LocalModel> model(new LocalModel(config, complete, std::move(embedding)));
  for (const LayerRange layers : complete.stages) {
    ASSIGN_OR_RETURN(const std::vector<StageTensor> tensors,
                     LoadStageTensors(config, file, layers, nullptr));
    ASSIGN_OR_RETURN(std::unique_ptr<StageExecutor> stage,
                     StageExecutor::Create(OptionsOf(config, complete, layers), tensors, compute));
    model->stages_.push_back(std::move(stage));
  }
  ASSIGN_OR_RETURN(model->head_, OutputHead::Create(config, file, nullptr, compute));
  return model;
}

absl::Status LocalModel::Forward(const Step& step, absl::Span<const int32_t> tokens,
                                 MatrixRef logits) {
  CHECK(tokens.size() == step.tokens());
  Matrix hidden(tokens.size(), config_.d_model);
  RETURN_IF_ERROR(embedding_.Lookup(tokens, hidden.ref()));
  for (const std::unique_ptr<StageExecutor>& stage : stages_) {
    RETURN_IF_ERROR(stage->Run(step, hidden.ref()));
  }
  head_->Logits(hidden.ref(), logits);
  return absl::OkStatus();
}

absl::Status LocalModel::Evaluate(
    absl::Span<const int32_t> tokens, uint32_t chunk,
    absl::FunctionRef<void(size_t position, absl::Span<const float> logits)> visit) {
  if (tokens.size() > config_.context) {
    return absl::InvalidArgumentError(absl::StrCat(
        tokens.size(), " tokens; the model's context is ", config_.context, " tokens long"));
  }
  const size_t rows = chunk == 0 ? options_.max_tokens : std::min(chunk, options_.max_tokens);
  for (size_t first = 0; first < tokens.size(); first += rows) {
    const absl::Span<const int32_t> part = tokens.subspan(first, rows);
    Step step;
    step.spans = {{kEvaluated, static_cast<uint32_t>(first), static_cast<uint32_t>(part.size())}};
    Matrix logits(part.size(), config_.vocab);
    RETURN_IF_ERROR(Forward(step, part, logits.ref()));
    for (size_t i = 0; i < part.size(); ++i) {
      visit(first + i, absl::MakeConstSpan(logits.row(i), logits.cols()));
    }
  }
  Step release;
  release.released = {kEvaluated};
  return Forward(release, {}, {nullptr, 0, config_.vocab});
}

size_t ArgMax(absl::Span<const float> values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

}  // namespace efedllm
