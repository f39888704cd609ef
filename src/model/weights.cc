#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "layers/packed_matrix.h"
#include "model/factors.h"

namespace efedllm {
namespace {

// What a tensor must look like. rows 0: a vector, which is f32 in every file.
struct Expected {
  std::string name;
  uint64_t rows = 0;
  uint64_t cols = 0;
  uint64_t experts = 0;  // that have such a matrix each, in one tensor; 0: a single one
  bool optional = false;

  bool is_vector() const { return rows == 0; }
  uint64_t all_rows() const { return is_vector() ? 1 : rows * std::max<uint64_t>(1, experts); }
  // As the file has it: innermost first.
  std::vector<uint64_t> shape() const {
    if (is_vector()) return {cols};
    if (experts == 0) return {cols, rows};
    return {cols, rows, experts};
  }
};

std::string ShapeText(absl::Span<const uint64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

Expected ExpectedRopeFactors(const ModelConfig& config) {
  return {.name = std::string(RopeFactorsTensor(config.rope.scaling)),
          .cols = config.rope.dims / 2,
          .optional = config.rope.scaling != RopeScaling::kLongFactors &&
                      config.rope.scaling != RopeScaling::kShortFactors};
}

// Rows of the tensor of this name, which has two dimensions; 0: there is none.
using RowsOf = absl::FunctionRef<uint64_t(const std::string& name)>;

// Collects a layer's tensors in the order of use.
class LayerTensors {
 public:
  LayerTensors(uint32_t layer, RowsOf rows_of)
      : prefix_(absl::StrCat("blk.", layer, ".")), rows_of_(rows_of) {}

  void Norm(absl::string_view part, uint64_t n) {
    tensors_.push_back({.name = absl::StrCat(prefix_, part, ".weight"), .cols = n});
  }
  // One that may have factors.
  void Matrix(absl::string_view part, uint64_t rows, uint64_t cols) {
    const std::string name = absl::StrCat(prefix_, part);
    uint64_t rank = rows_of_(FactorAName(name));
    const bool factored = rank > 0;
    tensors_.push_back(
        {.name = name + ".weight", .rows = rows, .cols = cols, .optional = factored});
    tensors_.push_back({.name = name + ".bias", .cols = rows, .optional = true});
    if (!factored) return;
    // Another rank than these shows as a wrong shape.
    rank = std::clamp(rank, kLeastRank, std::max(kLeastRank, std::min(rows, cols)));
    tensors_.push_back({.name = FactorAName(name), .rows = rank, .cols = cols});
    tensors_.push_back({.name = FactorBName(name), .rows = rows, .cols = rank});
  }
  void PlainMatrix(absl::string_view part, uint64_t rows, uint64_t cols) {
    tensors_.push_back(
        {.name = absl::StrCat(prefix_, part, ".weight"), .rows = rows, .cols = cols});
    tensors_.push_back(
        {.name = absl::StrCat(prefix_, part, ".bias"), .cols = rows, .optional = true});
  }
  void Experts(absl::string_view part, uint64_t experts, uint64_t rows, uint64_t cols) {
    tensors_.push_back({.name = absl::StrCat(prefix_, part, ".weight"),
                        .rows = rows,
                        .cols = cols,
                        .experts = experts});
  }

  std::vector<Expected> Take() { return std::move(tensors_); }

 private:
  const std::string prefix_;
  const RowsOf rows_of_;
  std::vector<Expected> tensors_;
};

void ExpectAttention(const ModelConfig& config, LayerTensors& layer) {
  const uint64_t d = config.d_model;
  const uint64_t q = uint64_t{config.heads} * config.head_dim;
  const uint64_t kv = uint64_t{config.kv_heads} * config.head_dim;
  layer.Norm("attn_norm", d);
  if (config.traits().fused) {
    layer.Matrix("attn_qkv", q + 2 * kv, d);
  } else {
    layer.Matrix("attn_q", q, d);
    layer.Matrix("attn_k", kv, d);
    layer.Matrix("attn_v", kv, d);
  }
  if (config.traits().qk_norm) {
    layer.Norm("attn_q_norm", config.head_dim);
    layer.Norm("attn_k_norm", config.head_dim);
  }
  layer.Matrix("attn_output", d, q);
  if (config.traits().post_norms) layer.Norm("post_attention_norm", d);
}

void ExpectFeedForward(const ModelConfig& config, LayerTensors& layer) {
  const uint64_t d = config.d_model, ffn = config.d_ffn;
  layer.Norm("ffn_norm", d);
  if (config.HasExperts()) {
    layer.PlainMatrix("ffn_gate_inp", config.experts, d);
    layer.Experts("ffn_gate_exps", config.experts, ffn, d);
    layer.Experts("ffn_up_exps", config.experts, ffn, d);
    layer.Experts("ffn_down_exps", config.experts, d, ffn);
  } else {
    if (!config.traits().fused) layer.Matrix("ffn_gate", ffn, d);
    layer.Matrix("ffn_up", config.traits().fused ? 2 * ffn : ffn, d);
    layer.Matrix("ffn_down", d, ffn);
  }
  if (config.traits().post_norms) layer.Norm("post_ffw_norm", d);
}

std::vector<Expected> ExpectedLayer(const ModelConfig& config, uint32_t number, RowsOf rows_of) {
  LayerTensors layer(number, rows_of);
  ExpectAttention(config, layer);
  ExpectFeedForward(config, layer);
  return layer.Take();
}

// The kernels' groups of rows must not mix what lies behind each other in one tensor.
absl::Status CheckWholeGroups(const ModelConfig& config) {
  const auto whole = [](absl::string_view what, uint64_t rows) {
    if (rows % kGroupRows == 0) return absl::OkStatus();
    return absl::UnimplementedError(
        absl::StrCat("the model's ", what, " is ", rows, ", which is not supported where tensors ",
                     "are joined (supported: multiples of ", kGroupRows, ")"));
  };
  if (config.traits().fused) {
    RETURN_IF_ERROR(whole("keys' width", uint64_t{config.kv_heads} * config.head_dim));
    RETURN_IF_ERROR(whole("queries' width", uint64_t{config.heads} * config.head_dim));
  }
  if (config.traits().fused || config.HasExperts()) {
    RETURN_IF_ERROR(whole("feed-forward width", config.d_ffn));
  }
  if (config.HasExperts()) RETURN_IF_ERROR(whole("width", config.d_model));
  return absl::OkStatus();
}

std::vector<Expected> ExpectedStage(const ModelConfig& config, LayerRange layers, RowsOf rows_of) {
  std::vector<Expected> stage = {ExpectedRopeFactors(config)};
  for (uint32_t layer = layers.first; layer < layers.last; ++layer) {
    for (Expected& expected : ExpectedLayer(config, layer, rows_of)) {
      stage.push_back(std::move(expected));
    }
  }
  return stage;
}

uint64_t RowsInFile(const ModelFile& file, const std::string& name) {
  const ModelTensor* tensor = file.FindTensor(name);
  if (tensor == nullptr) return 0;
  return tensor->shape.size() == 2 ? tensor->shape[1] : 1;
}

Expected ExpectedEmbedding(const ModelConfig& config) {
  return {.name = "token_embd.weight", .rows = config.vocab, .cols = config.d_model};
}

Expected ExpectedHead(const ModelConfig& config, const ModelFile& file) {
  if (file.FindTensor("output.weight") == nullptr) return ExpectedEmbedding(config);
  return {.name = "output.weight", .rows = config.vocab, .cols = config.d_model};
}

Expected ExpectedHeadNorm(const ModelConfig& config) {
  return {.name = "output_norm.weight", .cols = config.d_model};
}

absl::Status WrongShape(const Expected& expected, absl::string_view found) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", expected.name, ": the shape should be ",
                                                 ShapeText(expected.shape()), " and is ", found));
}

// A norm is small enough to look at each value; damaged matrices show in the first forward pass.
absl::Status CheckFinite(const ModelFile& file, const Expected& vector) {
  const ModelTensor* tensor = file.FindTensor(vector.name);
  if (tensor == nullptr) return absl::OkStatus();  // an optional one
  std::vector<float> values(vector.cols);
  std::memcpy(values.data(), tensor->bytes.data(), vector.cols * sizeof(float));
  for (const float value : values) {
    if (std::isfinite(value)) continue;
    return absl::InvalidArgumentError(absl::StrCat("tensor ", vector.name, " has the value ", value,
                                                   ": it is damaged, download the model again"));
  }
  return absl::OkStatus();
}

// The tensor as the file has it, checked.
absl::StatusOr<TensorSpec> SpecOf(const ModelFile& file, const Expected& expected) {
  const ModelTensor* tensor = file.FindTensor(expected.name);
  if (tensor == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the GGUF lacks the tensor ", expected.name,
                     "; download it again, or convert the model anew"));
  }
  if (tensor->shape != expected.shape()) return WrongShape(expected, ShapeText(tensor->shape));
  const std::optional<DType> dtype = DTypeFromGguf(tensor->gguf_type);
  if (!dtype || (expected.is_vector() && *dtype != DType::kF32)) {
    const std::string supported = expected.is_vector() ? "F32 (for vectors)" : AllDTypeNames();
    return absl::UnimplementedError(
        absl::StrCat("tensor ", expected.name, " has the type ", GgufTypeName(tensor->gguf_type),
                     " (number ", tensor->gguf_type,
                     "), which can't be computed with; convert the model to one of: ", supported));
  }
  TensorSpec spec;
  spec.name = expected.name;
  spec.dtype = *dtype;
  spec.rows = expected.all_rows();
  spec.cols = expected.cols;
  return spec;
}

absl::Status CheckLayers(const ModelConfig& config, LayerRange layers) {
  if (layers.first < layers.last && layers.last <= config.layers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("layers [", layers.first, ", ", layers.last,
                                                 ") of a model with ", config.layers));
}

// A tensor that came over the wire.
absl::Status CheckSpec(const Expected& expected, const TensorSpec& spec) {
  if (spec.rows != expected.all_rows() || spec.cols != expected.cols) {
    return WrongShape(expected, ShapeText({spec.cols, spec.rows}));
  }
  if (expected.is_vector() && spec.dtype != DType::kF32) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", expected.name, " must be F32"));
  }
  if (!RowBytes(spec.dtype, spec.cols)) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", expected.name, ": rows of ",
                                                   spec.cols, " values are not whole blocks of ",
                                                   DTypeName(spec.dtype)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view RopeFactorsTensor(RopeScaling scaling) {
  if (scaling == RopeScaling::kLongFactors) return "rope_factors_long.weight";
  if (scaling == RopeScaling::kShortFactors) return "rope_factors_short.weight";
  return "rope_freqs.weight";
}

absl::Status CheckModelTensors(const ModelConfig& config, const ModelFile& file) {
  RETURN_IF_ERROR(CheckWholeGroups(config));
  RETURN_IF_ERROR(CheckFactorsVersion(file));
  RETURN_IF_ERROR(StageTensors(config, file, {0, config.layers}).status());
  RETURN_IF_ERROR(EmbeddingTensor(config, file).status());
  RETURN_IF_ERROR(HeadTensors(config, file).status());
  const ModelTensor* tensor = file.FindTensor(RopeFactorsTensor(config.rope.scaling));
  if (tensor != nullptr) {
    std::vector<float> factors(config.rope.dims / 2);
    std::memcpy(factors.data(), tensor->bytes.data(), tensor->bytes.size());
    RETURN_IF_ERROR(CheckRopeFactors(factors));
  }
  absl::flat_hash_set<std::string> known = {"token_embd.weight", "output.weight",
                                            "output_norm.weight"};
  for (const RopeScaling scaling :
       {RopeScaling::kNone, RopeScaling::kLongFactors, RopeScaling::kShortFactors}) {
    known.insert(std::string(RopeFactorsTensor(scaling)));
  }
  RETURN_IF_ERROR(CheckFinite(file, ExpectedHeadNorm(config)));
  const auto rows_of = [&](const std::string& name) { return RowsInFile(file, name); };
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    for (Expected& expected : ExpectedLayer(config, layer, rows_of)) {
      if (expected.is_vector()) RETURN_IF_ERROR(CheckFinite(file, expected));
      known.insert(std::move(expected.name));
    }
  }
  for (const ModelTensor& tensor : file.tensors()) {
    if (known.contains(std::string(tensor.name))) continue;
    return absl::UnimplementedError(absl::StrCat("the model has the tensor ",
                                                 Printable(tensor.name),
                                                 ", which would change the result and can't be "
                                                 "computed with; models of architecture ",
                                                 config.architecture, " have none"));
  }
  return absl::OkStatus();
}

absl::Status CheckRopeFactors(absl::Span<const float> factors) {
  for (const float factor : factors) {
    if (factor > 0 && std::isfinite(factor)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "a factor of RoPE is ", factor, "; factors divide angles and must be positive and finite"));
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorSpec> EmbeddingTensor(const ModelConfig& config, const ModelFile& file) {
  return SpecOf(file, ExpectedEmbedding(config));
}

absl::StatusOr<HeadSpecs> HeadTensors(const ModelConfig& config, const ModelFile& file) {
  HeadSpecs specs;
  ASSIGN_OR_RETURN(specs.norm, SpecOf(file, ExpectedHeadNorm(config)));
  ASSIGN_OR_RETURN(specs.weight, SpecOf(file, ExpectedHead(config, file)));
  return specs;
}

absl::StatusOr<std::vector<TensorSpec>> StageTensors(const ModelConfig& config,
                                                     const ModelFile& file, LayerRange layers) {
  RETURN_IF_ERROR(CheckLayers(config, layers));
  std::vector<TensorSpec> specs;
  const auto rows_of = [&](const std::string& name) { return RowsInFile(file, name); };
  for (const Expected& expected : ExpectedStage(config, layers, rows_of)) {
    if (!expected.optional || file.FindTensor(expected.name) != nullptr) {
      ASSIGN_OR_RETURN(TensorSpec spec, SpecOf(file, expected));
      specs.push_back(std::move(spec));
    }
  }
  return specs;
}

absl::Status CheckStageShapes(const ModelConfig& config, LayerRange layers,
                              const std::vector<TensorSpec>& tensors) {
  RETURN_IF_ERROR(CheckLayers(config, layers));
  absl::flat_hash_map<absl::string_view, const TensorSpec*> given;
  for (const TensorSpec& spec : tensors) {
    if (!given.emplace(spec.name, &spec).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Printable(spec.name), " stands twice"));
    }
  }
  RETURN_IF_ERROR(CheckWholeGroups(config));
  const auto rows_of = [&](const std::string& name) -> uint64_t {
    const auto found = given.find(name);
    return found == given.end() ? 0 : found->second->rows;
  };
  size_t used = 0;
  for (const Expected& expected : ExpectedStage(config, layers, rows_of)) {
    const auto found = given.find(expected.name);
    if (found == given.end()) {
      if (expected.optional) continue;
      return absl::InvalidArgumentError(absl::StrCat("tensor ", expected.name, " is missing"));
    }
    RETURN_IF_ERROR(CheckSpec(expected, *found->second));
    ++used;
  }
  if (used == tensors.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(tensors.size() - used, " tensors that layers [",
                                                 layers.first, ", ", layers.last, ") do not need"));
}

absl::Status ValidateStageTensors(const ModelConfig& config, LayerRange layers,
                                  const std::vector<TensorSpec>& tensors) {
  RETURN_IF_ERROR(CheckStageShapes(config, layers, tensors));
  for (const TensorSpec& spec : tensors) {
    if (spec.chunks.size() == spec.chunk_count()) continue;
    return absl::InvalidArgumentError(absl::StrCat("tensor ", spec.name, " has ",
                                                   spec.chunks.size(), " chunk digests, not ",
                                                   spec.chunk_count()));
  }
  return absl::OkStatus();
}

uint64_t MatmulFlopsPerToken(const ModelConfig& config, const std::vector<TensorSpec>& tensors) {
  uint64_t weights = 0;
  for (const TensorSpec& tensor : tensors) {
    if (tensor.rows == 1) continue;
    const bool experts = config.HasExperts() && absl::EndsWith(tensor.name, "_exps.weight");
    const uint64_t rows =
        experts ? tensor.rows / config.experts * config.experts_used : tensor.rows;
    weights += rows * tensor.cols;
  }
  return 2 * weights;
}

uint64_t PackedBytes(const TensorSpec& tensor) {
  if (tensor.rows == 1) return tensor.bytes();
  return PackedMatrixBytes(tensor.dtype, tensor.rows, tensor.cols);
}

}  // namespace efedllm
