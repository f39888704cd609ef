#include "model/local_model.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cluster/kv_rule.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr SequenceId kEvaluated{1};
constexpr size_t kLogitsBytes = 16u << 20;

StageOptions OptionsOf(const ModelConfig& config, const LocalModelOptions& options,
                       LayerRange layers) {
  StageOptions stage;
  stage.config = config;
  stage.layers = layers;
  stage.kv_tokens = options.kv_tokens;
  stage.kv_type = *options.kv_type;
  stage.limits.max_tokens = options.max_tokens;
  stage.limits.max_spans = options.max_sequences;
  stage.limits.max_position = options.context;
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
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromFile(file));
  LocalModelOptions complete = options;
  if (complete.stages.empty()) complete.stages = {{0, config.layers}};
  if (!complete.kv_type.has_value()) complete.kv_type = AutoKvType(config);
  RETURN_IF_ERROR(CheckKvType(config, *complete.kv_type));
  if (complete.context == 0) {
    complete.context = complete.most_context == 0 ? config.context
                                                  : std::min(config.context, complete.most_context);
  }
  if (complete.kv_tokens == 0) complete.kv_tokens = complete.context;
  RETURN_IF_ERROR(CheckComplete(complete.stages, config.layers));
  ASSIGN_OR_RETURN(Embedding embedding, Embedding::Create(config, file));
  std::unique_ptr<LocalModel> model(new LocalModel(config, complete, std::move(embedding)));
  for (const LayerRange layers : complete.stages) {
    ASSIGN_OR_RETURN(const std::vector<StageTensor> tensors,
                     LoadStageTensors(config, file, layers, {.team = compute.team.get()}));
    ASSIGN_OR_RETURN(std::unique_ptr<StageExecutor> stage,
                     StageExecutor::Create(OptionsOf(config, complete, layers), tensors, compute));
    model->stages_.push_back(std::move(stage));
  }
  ASSIGN_OR_RETURN(model->head_, OutputHead::Create(config, file, compute));
  return model;
}

absl::Status LocalModel::RunStages(const Step& step, absl::Span<const int32_t> tokens,
                                   MatrixRef hidden) {
  CHECK(tokens.size() == step.tokens() && hidden.rows == tokens.size());
  RETURN_IF_ERROR(embedding_.Lookup(tokens, hidden));
  for (size_t i = 0; i < stages_.size(); ++i) {
    if (i > 0 && hook_ && hidden.rows > 0) {
      RETURN_IF_ERROR(hook_(step, options_.stages[i].first, hidden));
    }
    RETURN_IF_ERROR(stages_[i]->Run(step, hidden));
  }
  return absl::OkStatus();
}

absl::Status LocalModel::Forward(const Step& step, absl::Span<const int32_t> tokens,
                                 MatrixRef logits) {
  Matrix hidden(tokens.size(), config_.d_model);
  RETURN_IF_ERROR(RunStages(step, tokens, hidden.ref()));
  Logits(hidden.ref(), logits);
  return absl::OkStatus();
}

// The head's part of a step, some rows at a time: a vocabulary's logits for all of them may take
// more memory than the weights of a layer.
void LocalModel::VisitLogits(ConstMatrixRef hidden, size_t first, LogitsVisitor visit) {
  const size_t most = std::clamp<size_t>(kLogitsBytes / (config_.vocab * sizeof(float)), 1, 64);
  Matrix logits(std::min(most, hidden.rows), config_.vocab);
  for (size_t row = 0; row < hidden.rows; row += most) {
    const size_t rows = std::min(most, hidden.rows - row);
    Logits({hidden.row(row), rows, hidden.cols}, {logits.row(0), rows, logits.cols()});
    for (size_t i = 0; i < rows; ++i) {
      visit(first + row + i, absl::MakeConstSpan(logits.row(i), logits.cols()));
    }
  }
}

absl::Status LocalModel::Evaluate(absl::Span<const int32_t> tokens, uint32_t chunk,
                                  LogitsVisitor visit) {
  if (tokens.size() > options_.context) {
    return absl::InvalidArgumentError(absl::StrCat(
        tokens.size(), " tokens; the model's context is ", options_.context, " tokens long"));
  }
  const size_t rows = chunk == 0 ? options_.max_tokens : std::min(chunk, options_.max_tokens);
  for (size_t first = 0; first < tokens.size(); first += rows) {
    const absl::Span<const int32_t> part = tokens.subspan(first, rows);
    Step step;
    step.spans = {{kEvaluated, static_cast<uint32_t>(first), static_cast<uint32_t>(part.size())}};
    Matrix hidden(part.size(), config_.d_model);
    RETURN_IF_ERROR(RunStages(step, part, hidden.ref()));
    VisitLogits(hidden.ref(), first, visit);
  }
  Step release;
  release.trims = {{kEvaluated, 0}};
  return RunStages(release, {}, {nullptr, 0, config_.d_model});
}

absl::StatusOr<std::vector<LayerRange>> EqualStages(uint32_t layers, uint32_t stages) {
  if (stages == 0 || stages > layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model's ", layers, " layers can't make ", stages, " stages"));
  }
  std::vector<LayerRange> ranges;
  ranges.reserve(stages);
  uint32_t first = 0;
  for (uint32_t i = 0; i < stages; ++i) {
    const uint32_t own = layers / stages + (i < layers % stages ? 1 : 0);
    ranges.push_back({first, first + own});
    first += own;
  }
  return ranges;
}

size_t ArgMax(absl::Span<const float> values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

}  // namespace efedllm
