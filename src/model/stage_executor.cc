#include "model/stage_executor.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/check.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "layers/decoder_layer.h"
#include "layers/kv_cache.h"
#include "layers/rope.h"

namespace efedllm {
namespace {

// The self-test's sequence; the coordinator counts up from 1 and never gets here.
constexpr SequenceId kSelfTestSequence{std::numeric_limits<uint64_t>::max()};

using TensorMap = absl::flat_hash_map<std::string, std::shared_ptr<const PackedTensor>>;

// The tensors by name, after checking that they are what the layers need.
absl::StatusOr<TensorMap> MapTensors(const StageOptions& options,
                                     const std::vector<StageTensor>& tensors) {
  std::vector<TensorSpec> specs;
  TensorMap map;
  for (const StageTensor& tensor : tensors) {
    if (tensor.data == nullptr || tensor.data->dtype() != tensor.spec.dtype ||
        tensor.data->rows() != tensor.spec.rows || tensor.data->cols() != tensor.spec.cols) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Printable(tensor.spec.name), " has other weights than it says"));
    }
    specs.push_back(tensor.spec);
    map[tensor.spec.name] = tensor.data;
  }
  RETURN_IF_ERROR(CheckStageShapes(options.config, options.layers, specs));
  return map;
}

absl::StatusOr<Rope> MakeRope(const ModelConfig& config, const TensorMap& tensors) {
  // To divide a position by the scale is to divide every angle by it.
  std::vector<float> factors(config.rope_dims / 2, config.rope_scale);
  if (const auto found = tensors.find(kRopeFreqsTensor); found != tensors.end()) {
    RETURN_IF_ERROR(CheckRopeFactors(found->second->vector()));
    for (size_t i = 0; i < factors.size(); ++i) factors[i] *= found->second->vector()[i];
  }
  return Rope(config.rope_dims, config.rope_base, factors);
}

LayerWeights WeightsOf(const TensorMap& tensors, uint32_t layer) {
  const auto tensor = [&](absl::string_view part) -> const PackedTensor& {
    return *tensors.at(absl::StrCat("blk.", layer, ".", part, ".weight"));
  };
  LayerWeights weights;
  weights.attention_norm = tensor("attn_norm").vector();
  weights.query = tensor("attn_q").matrix();
  weights.key = tensor("attn_k").matrix();
  weights.value = tensor("attn_v").matrix();
  weights.output = tensor("attn_output").matrix();
  weights.ffn_norm = tensor("ffn_norm").vector();
  weights.gate = tensor("ffn_gate").matrix();
  weights.up = tensor("ffn_up").matrix();
  weights.down = tensor("ffn_down").matrix();
  return weights;
}

LayerShape ShapeOf(const ModelConfig& config) {
  return {config.d_model,  config.heads, config.kv_heads,
          config.head_dim, config.d_ffn, config.norm_epsilon};
}

// Limits and duplicates; what needs no KV to decide.
absl::Status CheckStep(const Step& step, const StepLimits& limits) {
  if (step.spans.size() > limits.max_spans || step.released.size() > limits.max_released) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a step of ", step.spans.size(), " spans and ", step.released.size(), " releases; at most ",
        limits.max_spans, " and ", limits.max_released, " are allowed"));
  }
  absl::flat_hash_set<SequenceId> seen;
  uint64_t tokens = 0;
  for (const SequenceSpan& span : step.spans) {
    const uint64_t end = uint64_t{span.first_position} + span.tokens;
    if (span.tokens == 0 || end > limits.max_position) {
      return absl::InvalidArgumentError(
          absl::StrCat("sequence ", span.sequence.v, ": positions [", span.first_position, ", ",
                       end, ") are none or beyond the limit of ", limits.max_position));
    }
    if (!seen.insert(span.sequence).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("sequence ", span.sequence.v, " stands twice in a step"));
    }
    tokens += span.tokens;
  }
  if (tokens > limits.max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("a step of ", tokens, " tokens; at most ", limits.max_tokens, " are allowed"));
  }
  for (const SequenceId released : step.released) {
    if (!seen.contains(released)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("sequence ", released.v, " is released and run in one step"));
  }
  return absl::OkStatus();
}

absl::Status CheckHidden(const Step& step, ConstMatrixRef hidden, uint32_t d_model) {
  if (hidden.rows != step.tokens() || hidden.cols != d_model) {
    return absl::InvalidArgumentError(absl::StrCat("activations of [", hidden.rows, ", ",
                                                   hidden.cols, "] for a step of [", step.tokens(),
                                                   ", ", d_model, "]"));
  }
  for (size_t row = 0; row < hidden.rows; ++row) {
    for (size_t i = 0; i < hidden.cols; ++i) {
      if (std::isfinite(hidden.row(row)[i])) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("the activation of row ", row, ", dimension ", i, " is not finite"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

struct StageExecutor::State {
  State(const StageOptions& options, TensorMap tensors, Rope rope, std::unique_ptr<KvCache> kv,
        Compute& compute)
      : options(options),
        tensors(std::move(tensors)),
        kv(std::move(kv)),
        layer(ShapeOf(options.config), std::move(rope), compute) {
    for (uint32_t i = options.layers.first; i < options.layers.last; ++i) {
      weights.push_back(WeightsOf(this->tensors, i));
    }
  }

  // All layers over spans for which the KV has room.
  void RunLayers(absl::Span<const KvSpan> spans, MatrixRef hidden) {
    layer.BeginStep(spans);
    for (uint32_t i = 0; i < weights.size(); ++i) layer.Run(weights[i], i, *kv, hidden);
  }

  const StageOptions options;
  const TensorMap tensors;  // what the weights borrow from
  std::vector<LayerWeights> weights;
  const std::unique_ptr<KvCache> kv;
  DecoderLayer layer;
};

StageExecutor::StageExecutor(std::unique_ptr<State> state) : state_(std::move(state)) {}
StageExecutor::~StageExecutor() = default;

absl::StatusOr<std::unique_ptr<StageExecutor>> StageExecutor::Create(
    const StageOptions& options, const std::vector<StageTensor>& tensors, Compute& compute) {
  RETURN_IF_ERROR(ValidateModelConfig(options.config));
  ASSIGN_OR_RETURN(TensorMap map, MapTensors(options, tensors));
  ASSIGN_OR_RETURN(Rope rope, MakeRope(options.config, map));
  const KvShape shape{options.layers.size(), options.config.kv_heads, options.config.head_dim};
  ASSIGN_OR_RETURN(std::unique_ptr<KvCache> kv, KvCache::Create(shape, options.kv_tokens));
  return std::unique_ptr<StageExecutor>(new StageExecutor(
      std::make_unique<State>(options, std::move(map), std::move(rope), std::move(kv), compute)));
}

absl::Status StageExecutor::Run(const Step& step, MatrixRef hidden) {
  RETURN_IF_ERROR(CheckStep(step, state_->options.limits));
  RETURN_IF_ERROR(CheckHidden(step, hidden, state_->options.config.d_model));
  for (const SequenceId released : step.released) state_->kv->Release(released);
  std::vector<KvSpan> spans;
  spans.reserve(step.spans.size());
  for (const SequenceSpan& span : step.spans) {
    spans.push_back({span.sequence, span.first_position, span.tokens});
  }
  if (spans.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(state_->kv->Extend(spans));
  state_->RunLayers(spans, hidden);
  return absl::OkStatus();
}

absl::Status StageExecutor::SelfTest() {
  Matrix hidden(1, state_->options.config.d_model);
  for (size_t i = 0; i < hidden.cols(); ++i) {
    // Anything that is neither constant nor large.
    hidden.row(0)[i] = static_cast<float>((i * 7 + 3) % 17) / 8.0f - 1.0f;
  }
  const KvSpan span{kSelfTestSequence, 0, 1};
  RETURN_IF_ERROR(state_->kv->Extend({span}));
  state_->RunLayers({span}, hidden.ref());
  state_->kv->Release(kSelfTestSequence);
  for (size_t i = 0; i < hidden.cols(); ++i) {
    if (std::isfinite(hidden.row(0)[i])) continue;
    return absl::InternalError(absl::StrCat(
        "a forward pass of layers [", state_->options.layers.first, ", ",
        state_->options.layers.last, ") gave a value that is not finite: the weights are damaged"));
  }
  return absl::OkStatus();
}

uint64_t StageExecutor::sequences() const { return state_->kv->sequences(); }
uint64_t StageExecutor::kv_tokens_used() const { return state_->kv->tokens_used(); }
uint64_t StageExecutor::kv_tokens_total() const { return state_->kv->tokens_total(); }

uint64_t KvBytesPerToken(const ModelConfig& config) {
  return KvShape{1, config.kv_heads, config.head_dim}.BytesPerToken();
}

absl::StatusOr<std::vector<StageTensor>> LoadTensors(const ModelFile& file,
                                                     std::vector<TensorSpec> specs,
                                                     WeightCache* cache, TensorHasher* hasher) {
  std::unique_ptr<TensorHasher> own_hasher;
  if (cache != nullptr && hasher == nullptr) {
    ASSIGN_OR_RETURN(own_hasher, TensorHasher::Create(file, ""));
    hasher = own_hasher.get();
  }
  std::vector<StageTensor> loaded;
  for (TensorSpec& spec : specs) {
    const ModelTensor& tensor = *file.FindTensor(spec.name);
    std::shared_ptr<const PackedTensor> data;
    if (cache == nullptr) {
      ASSIGN_OR_RETURN(data, PackedTensor::FromGguf(spec, tensor.bytes));
    } else {
      ASSIGN_OR_RETURN(spec, hasher->Hash(std::move(spec)));
      absl::StatusOr<std::shared_ptr<const PackedTensor>> cached = cache->Get(spec);
      if (absl::IsNotFound(cached.status())) cached = cache->Put(spec, tensor.bytes);
      if (!cached.ok()) return cached.status();
      data = *std::move(cached);
    }
    file.DropPages(tensor);
    loaded.push_back({std::move(spec), std::move(data)});
  }
  return loaded;
}

absl::StatusOr<std::vector<StageTensor>> LoadStageTensors(const ModelConfig& config,
                                                          const ModelFile& file, LayerRange layers,
                                                          WeightCache* cache,
                                                          TensorHasher* hasher) {
  ASSIGN_OR_RETURN(std::vector<TensorSpec> specs, StageTensors(config, file, layers));
  return LoadTensors(file, std::move(specs), cache, hasher);
}

}  // namespace efedllm
