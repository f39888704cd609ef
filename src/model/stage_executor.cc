#include "model/stage_executor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "cluster/kv_rule.h"
#include "cluster/step_check.h"
#include "common/check.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "layers/decoder_layer.h"
#include "layers/elementwise.h"
#include "layers/kv_cache.h"
#include "layers/rope.h"
#include "model/factors.h"
#include "model/ropes.h"
#include "model/weights.h"

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

absl::Span<const float> RopeFactors(const ModelConfig& config, const TensorMap& tensors) {
  const auto found = tensors.find(RopeFactorsTensor(config.rope.scaling));
  return found == tensors.end() ? absl::Span<const float>() : found->second->vector();
}

// One layer's tensors by their names in it.
class LayerTensors {
 public:
  LayerTensors(const TensorMap& tensors, uint32_t layer)
      : tensors_(tensors), prefix_(absl::StrCat("blk.", layer, ".")) {}

  absl::Span<const float> Vector(absl::string_view part) const {  // empty: there is none
    const auto found = tensors_.find(absl::StrCat(prefix_, part));
    return found == tensors_.end() ? absl::Span<const float>() : found->second->vector();
  }
  PackedMatrix Matrix(absl::string_view name) const {  // without data: there is none
    const auto found = tensors_.find(absl::StrCat(prefix_, name));
    return found == tensors_.end() ? PackedMatrix() : found->second->matrix();
  }
  Projection Matmul(absl::string_view part) const {
    return {.w = Matrix(absl::StrCat(part, ".weight")),
            .bias = Vector(absl::StrCat(part, ".bias")),
            .factor_a = Matrix(FactorAName(part)),
            .factor_b = Matrix(FactorBName(part))};
  }

 private:
  const TensorMap& tensors_;
  const std::string prefix_;
};

// Outputs [first, first + count) of a matrix that several are joined in.
Projection Rows(const Projection& all, size_t first, size_t count) {
  Projection rows = all;
  if (all.w.data != nullptr) rows.w = all.w.Slice(first, count);
  if (all.is_factored()) rows.factor_b = all.factor_b.Slice(first, count);
  if (!all.bias.empty()) rows.bias = all.bias.subspan(first, count);
  return rows;
}

void SetAttention(const ModelConfig& config, const LayerTensors& tensors, LayerWeights& weights) {
  const size_t q = size_t{config.heads} * config.head_dim;
  const size_t kv = size_t{config.kv_heads} * config.head_dim;
  weights.attention_norm = tensors.Vector("attn_norm.weight");
  if (config.traits().fused) {
    const Projection qkv = tensors.Matmul("attn_qkv");
    weights.query = Rows(qkv, 0, q);
    weights.key = Rows(qkv, q, kv);
    weights.value = Rows(qkv, q + kv, kv);
  } else {
    weights.query = tensors.Matmul("attn_q");
    weights.key = tensors.Matmul("attn_k");
    weights.value = tensors.Matmul("attn_v");
  }
  weights.query_norm = tensors.Vector("attn_q_norm.weight");
  weights.key_norm = tensors.Vector("attn_k_norm.weight");
  weights.output = tensors.Matmul("attn_output");
  weights.post_attention_norm = tensors.Vector("post_attention_norm.weight");
}

void SetFeedForward(const ModelConfig& config, const LayerTensors& tensors, LayerWeights& weights) {
  weights.ffn_norm = tensors.Vector("ffn_norm.weight");
  FeedForwardWeights& ffn = weights.feed_forward;
  if (config.HasExperts()) {
    ffn.router = tensors.Matmul("ffn_gate_inp");
    ffn.gate = {tensors.Matrix("ffn_gate_exps.weight"), {}};
    ffn.up = {tensors.Matrix("ffn_up_exps.weight"), {}};
    ffn.down = {tensors.Matrix("ffn_down_exps.weight"), {}};
  } else if (config.traits().fused) {
    const Projection both = tensors.Matmul("ffn_up");
    ffn.gate = Rows(both, 0, config.d_ffn);
    ffn.up = Rows(both, config.d_ffn, config.d_ffn);
    ffn.down = tensors.Matmul("ffn_down");
  } else {
    ffn.gate = tensors.Matmul("ffn_gate");
    ffn.up = tensors.Matmul("ffn_up");
    ffn.down = tensors.Matmul("ffn_down");
  }
  weights.post_ffn_norm = tensors.Vector("post_ffw_norm.weight");
}

LayerWeights WeightsOf(const ModelConfig& config, const TensorMap& map, uint32_t layer) {
  const LayerTensors tensors(map, layer);
  LayerWeights weights;
  SetAttention(config, tensors, weights);
  SetFeedForward(config, tensors, weights);
  weights.window = config.HasWindow(layer) ? config.window : 0;
  weights.rope = RopeOfLayer(config, layer);
  return weights;
}

LayerShape ShapeOf(const ModelConfig& config) {
  return {.d_model = config.d_model,
          .heads = config.heads,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .attention_scale = config.attention_scale,
          .attention_soft_cap = config.attention_soft_cap,
          .norm_epsilon = config.norm_epsilon,
          .feed_forward = {
              .d_model = config.d_model,
              .d_ffn = config.d_ffn,
              .experts = config.experts,
              .experts_used = config.experts_used,
              .activation = config.traits().activation == Activation::kGelu ? GeluMul : SiluMul}};
}

KvShape KvShapeOf(const StageOptions& options) {
  return {.layers = options.layers.size(),
          .kv_heads = options.config.kv_heads,
          .head_dim = options.config.head_dim,
          .type = options.kv_type,
          .output_dim = options.keep_outputs ? options.config.d_model : 0};
}

absl::Status CheckShape(const Step& step, ConstMatrixRef hidden, uint32_t d_model) {
  if (hidden.rows == step.tokens() && hidden.cols == d_model) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("activations of [", hidden.rows, ", ", hidden.cols,
                                                 "] for a step of [", step.tokens(), ", ", d_model,
                                                 "]"));
}

absl::Status CheckFinite(ConstMatrixRef hidden) {
  for (size_t row = 0; row < hidden.rows; ++row) {
    for (size_t i = 0; i < hidden.cols; ++i) {
      if (std::isfinite(hidden.row(row)[i])) continue;
      return absl::DataLossError(
          absl::StrCat("the activation of row ", row, ", dimension ", i, " is not finite"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

struct StageExecutor::State {
  State(const StageOptions& options, TensorMap tensors, std::vector<Rope> ropes,
        std::unique_ptr<KvCache> kv, Compute& compute)
      : options(options),
        tensors(std::move(tensors)),
        kv(std::move(kv)),
        layer(ShapeOf(options.config), std::move(ropes), compute) {
    for (uint32_t i = options.layers.first; i < options.layers.last; ++i) {
      weights.push_back(WeightsOf(options.config, this->tensors, i));
    }
  }

  // All layers over spans for which the KV has room.
  void RunLayers(absl::Span<const KvSpan> spans, MatrixRef hidden) {
    layer.BeginStep(spans);
    for (uint32_t i = 0; i < weights.size(); ++i) layer.Run(weights[i], i, *kv, hidden);
  }

  // What a step does before its spans.
  absl::Status Prepare(const Step& step) {
    if (step.forget_others) ForgetOthers(step);
    for (const SequenceTrim& trim : step.trims) kv->Truncate(trim.sequence, trim.length);
    for (const SequenceFork& fork : step.forks) {
      RETURN_IF_ERROR(kv->Fork(fork.sequence, fork.parent, fork.tokens));
    }
    return absl::OkStatus();
  }

  void ForgetOthers(const Step& step) {
    absl::flat_hash_set<SequenceId> named;
    for (const SequenceTrim& trim : step.trims) named.insert(trim.sequence);
    for (const KvExtent& extent : kv->extents()) {
      if (!named.contains(extent.sequence)) kv->Truncate(extent.sequence, 0);
    }
  }

  void KeepOutputs(absl::Span<const KvSpan> spans, ConstMatrixRef hidden) {
    size_t row = 0;
    for (const KvSpan& span : spans) {
      for (uint32_t i = 0; i < span.tokens; ++i, ++row) {
        const absl::Span<float> kept = kv->output(span.sequence, span.first_position + i);
        std::copy_n(hidden.row(row), hidden.cols, kept.begin());
      }
    }
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
  RETURN_IF_ERROR(CheckKvType(options.config, options.kv_type));
  ASSIGN_OR_RETURN(TensorMap map, MapTensors(options, tensors));
  ASSIGN_OR_RETURN(std::vector<Rope> ropes,
                   MakeRopes(options.config, RopeFactors(options.config, map)));
  ASSIGN_OR_RETURN(std::unique_ptr<KvCache> kv,
                   KvCache::Create(KvShapeOf(options), options.kv_tokens));
  return std::unique_ptr<StageExecutor>(new StageExecutor(
      std::make_unique<State>(options, std::move(map), std::move(ropes), std::move(kv), compute)));
}

const StageOptions& StageExecutor::options() const { return state_->options; }

absl::Status StageExecutor::Run(const Step& step, MatrixRef hidden) {
  RETURN_IF_ERROR(CheckStep(step, state_->options.limits));
  RETURN_IF_ERROR(CheckShape(step, hidden, state_->options.config.d_model));
  RETURN_IF_ERROR(CheckFinite(hidden));
  RETURN_IF_ERROR(state_->Prepare(step));
  std::vector<KvSpan> spans;
  spans.reserve(step.spans.size());
  for (const SequenceSpan& span : step.spans) {
    spans.push_back({span.sequence, span.first_position, span.tokens});
  }
  if (spans.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(state_->kv->Extend(spans));
  state_->RunLayers(spans, hidden);
  if (state_->options.keep_outputs) state_->KeepOutputs(spans, hidden);
  return absl::OkStatus();
}

absl::Status StageExecutor::Recall(const Step& step, MatrixRef hidden) {
  KvCache& kv = *state_->kv;
  RETURN_IF_ERROR(CheckStep(step, state_->options.limits));
  if (hidden.rows > 0) {
    RETURN_IF_ERROR(CheckShape(step, hidden, state_->options.config.d_model));
    if (!state_->options.keep_outputs) {
      return absl::FailedPreconditionError("this stage keeps no outputs that it could send again");
    }
  }
  Step rest = step;
  std::erase_if(rest.forks, [&](const SequenceFork& fork) { return kv.length(fork.sequence) > 0; });
  RETURN_IF_ERROR(state_->Prepare(rest));
  for (const SequenceSpan& span : step.spans) {
    if (span.first_position + span.tokens <= kv.length(span.sequence)) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("sequence ", span.sequence.v, " has KV up to position ",
                     kv.length(span.sequence), " here, so [", span.first_position, ", ",
                     span.first_position + span.tokens, ") can't be replayed from it"));
  }
  if (hidden.rows == 0) return absl::OkStatus();
  size_t row = 0;
  for (const SequenceSpan& span : step.spans) {
    for (uint32_t i = 0; i < span.tokens; ++i, ++row) {
      absl::c_copy(std::as_const(kv).output(span.sequence, span.first_position + i),
                   hidden.row(row));
    }
  }
  return absl::OkStatus();
}

absl::Status StageExecutor::ExportKv(SequenceId sequence, uint32_t first, uint32_t tokens,
                                     std::string& out) const {
  return state_->kv->Export(sequence, first, tokens, out);
}

absl::Status StageExecutor::ImportKv(SequenceId sequence, uint32_t first, uint32_t tokens,
                                     absl::string_view bytes) {
  if (uint64_t{first} + tokens > state_->options.limits.max_position) {
    return absl::InvalidArgumentError(absl::StrCat("KV of ", tokens, " positions from ", first,
                                                   " on; the limit is ",
                                                   state_->options.limits.max_position));
  }
  return state_->kv->Import(sequence, first, tokens, bytes);
}

std::vector<KvExtent> StageExecutor::extents() const { return state_->kv->extents(); }

absl::Status StageExecutor::SelfTest() {
  Matrix hidden(1, state_->options.config.d_model);
  for (size_t i = 0; i < hidden.cols(); ++i) {
    // Anything that is neither constant nor large.
    hidden.row(0)[i] = static_cast<float>((i * 7 + 3) % 17) / 8.0f - 1.0f;
  }
  const KvSpan span{kSelfTestSequence, 0, 1};
  RETURN_IF_ERROR(state_->kv->Extend({span}));
  state_->RunLayers({span}, hidden.ref());
  state_->kv->Truncate(kSelfTestSequence, 0);
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

uint64_t KvBytesPerToken(const ModelConfig& config, KvType kv_type) {
  return StageKvBytesPerToken(config, kv_type, 1, false);
}

uint64_t StageKvBytesPerToken(const ModelConfig& config, KvType kv_type, uint32_t layers,
                              bool keep_outputs) {
  return KvShape{.layers = layers,
                 .kv_heads = config.kv_heads,
                 .head_dim = config.head_dim,
                 .type = kv_type,
                 .output_dim = keep_outputs ? config.d_model : 0}
      .BytesPerToken();
}

}  // namespace efedllm
