#include "model/stage_replay.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "layers/kv_cache.h"
#include "model/weights.h"

namespace efedllm {
namespace {

constexpr uint32_t kMaxSpans = 64;

absl::Status CheckRows(const ModelConfig& config, LayerRange layers,
                       absl::Span<const uint32_t> lengths, ConstMatrixRef rows) {
  if (layers.first >= layers.last || layers.last > config.layers) {
    return absl::InvalidArgumentError(absl::StrCat("layers [", layers.first, ", ", layers.last,
                                                   ") of a model that has ", config.layers));
  }
  const bool empty = std::any_of(lengths.begin(), lengths.end(), [&](uint32_t length) {
    return length == 0 || length > config.context;
  });
  const uint64_t sum = std::accumulate(lengths.begin(), lengths.end(), uint64_t{0});
  if (!empty && sum == rows.rows && rows.cols == config.d_model) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "rows of [", rows.rows, ", ", rows.cols, "] for ", lengths.size(), " sequences of ", sum,
      " positions of ", config.d_model, " dimensions; each has 1 to ", config.context));
}

uint64_t BytesOf(const std::vector<StageTensor>& tensors) {
  uint64_t bytes = 0;
  for (const StageTensor& tensor : tensors) bytes += PackedBytes(tensor.spec);
  return bytes;
}

}  // namespace

absl::Status RunSequences(StageExecutor& stage, absl::Span<const uint32_t> lengths, MatrixRef rows,
                          const std::function<absl::Status()>& before_step) {
  const StepLimits& limits = stage.options().limits;
  size_t row = 0, ended = 0;
  uint32_t done = 0;  // of the first sequence that isn't done
  for (size_t i = 0; i < lengths.size();) {
    if (before_step) RETURN_IF_ERROR(before_step());
    Step step;
    step.forget_others = row == 0;
    for (; ended < i; ++ended) step.trims.push_back({SequenceId{ended + 1}, 0});
    uint32_t room = limits.max_tokens;
    while (i < lengths.size() && room > 0 && step.spans.size() < limits.max_spans) {
      const uint32_t tokens = std::min(room, lengths[i] - done);
      step.spans.push_back({SequenceId{i + 1}, done, tokens});
      room -= tokens;
      done += tokens;
      if (done < lengths[i]) break;
      done = 0;
      ++i;
    }
    RETURN_IF_ERROR(stage.Run(step, {rows.row(row), step.tokens(), rows.cols}));
    row += step.tokens();
  }
  CHECK(row == rows.rows);
  return absl::OkStatus();
}

uint64_t KvTokensOfSequences(absl::Span<const uint32_t> lengths, const StepLimits& limits) {
  const uint64_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
  // One step's sequences and what a long one had before; each may leave most of a page unused.
  return longest + limits.max_tokens + uint64_t{limits.max_spans} * KvCache::kPagePositions;
}

StageReplay::StageReplay(const StageReplayOptions& options, LayerSource source, Compute& compute)
    : options_(options), source_(std::move(source)), compute_(compute) {
  CHECK(options_.step_rows > 0);
}

absl::StatusOr<std::vector<StageTensor>> StageReplay::Layer(uint32_t layer) {
  if (const auto found = kept_.find(layer); found != kept_.end()) return found->second;
  ASSIGN_OR_RETURN(std::vector<StageTensor> tensors, source_(LayerRange{layer, layer + 1}));
  const uint64_t bytes = BytesOf(tensors);
  if (bytes <= options_.weight_bytes - std::min(options_.weight_bytes, kept_bytes_)) {
    kept_[layer] = tensors;
    kept_bytes_ += bytes;
  }
  return tensors;
}

absl::Status StageReplay::Run(LayerRange layers, KvType kv_type, absl::Span<const uint32_t> lengths,
                              MatrixRef rows, const ReplayHooks& hooks) {
  RETURN_IF_ERROR(CheckRows(options_.config, layers, lengths, rows));
  StageOptions stage;
  stage.config = options_.config;
  stage.kv_type = kv_type;
  stage.limits.max_tokens = options_.step_rows;
  stage.limits.max_spans = kMaxSpans;
  stage.limits.max_trims = kMaxSpans;
  stage.limits.max_position = options_.config.context;
  stage.kv_tokens = KvTokensOfSequences(lengths, stage.limits);
  const double steps = static_cast<double>(layers.size()) *
                       (static_cast<double>(rows.rows) / options_.step_rows + 1);
  double done = 0;
  for (uint32_t layer = layers.first; layer < layers.last; ++layer) {
    const auto ask = [&]() -> absl::Status {
      return hooks.before_step ? hooks.before_step(std::min(1.0, done++ / steps))
                               : absl::OkStatus();
    };
    RETURN_IF_ERROR(ask());  // before it is loaded, too
    stage.layers = {layer, layer + 1};
    ASSIGN_OR_RETURN(const std::vector<StageTensor> tensors, Layer(layer));
    ASSIGN_OR_RETURN(const std::unique_ptr<StageExecutor> executor,
                     StageExecutor::Create(stage, tensors, compute_));
    RETURN_IF_ERROR(RunSequences(*executor, lengths, rows, ask));
    if (hooks.after_layer) hooks.after_layer(layer + 1, rows);
  }
  return absl::OkStatus();
}

}  // namespace efedllm
