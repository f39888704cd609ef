#include "model/weights.h"

#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "layers/packed_matrix.h"

namespace efedllm {
namespace {

// What a tensor must look like. rows 0: a vector, which is f32 in every file.
struct Expected {
  std::string name;
  uint64_t rows = 0;
  uint64_t cols = 0;
};

std::string ShapeText(const Expected& expected) {
  return expected.rows == 0 ? absl::StrCat("[", expected.cols, "]")
                            : absl::StrCat("[", expected.cols, ", ", expected.rows, "]");
}

Expected ExpectedRopeFreqs(const ModelConfig& config) {
  return {std::string(kRopeFreqsTensor), 0, config.rope_dims / 2};
}

// In the order of use.
std::vector<Expected> ExpectedLayer(const ModelConfig& config, uint32_t layer) {
  const uint64_t d = config.d_model;
  const uint64_t q = uint64_t{config.heads} * config.head_dim;
  const uint64_t kv = uint64_t{config.kv_heads} * config.head_dim;
  const uint64_t ffn = config.d_ffn;
  const auto name = [layer](absl::string_view part) {
    return absl::StrCat("blk.", layer, ".", part, ".weight");
  };
  return {
      {name("attn_norm"), 0, d},  {name("attn_q"), q, d},      {name("attn_k"), kv, d},
      {name("attn_v"), kv, d},    {name("attn_output"), d, q}, {name("ffn_norm"), 0, d},
      {name("ffn_gate"), ffn, d}, {name("ffn_up"), ffn, d},    {name("ffn_down"), d, ffn},
  };
}

Expected ExpectedEmbedding(const ModelConfig& config) {
  return {"token_embd.weight", config.vocab, config.d_model};
}

Expected ExpectedHead(const ModelConfig& config, const ModelFile& file) {
  if (file.FindTensor("output.weight") == nullptr) return ExpectedEmbedding(config);
  return {"output.weight", config.vocab, config.d_model};
}

Expected ExpectedHeadNorm(const ModelConfig& config) {
  return {"output_norm.weight", 0, config.d_model};
}

absl::Status WrongShape(const Expected& expected, absl::string_view found) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", expected.name, ": the shape should be ",
                                                 ShapeText(expected), " and is ", found));
}

// A norm is small enough to look at each value; damaged matrices show in the first forward pass.
absl::Status CheckFinite(const ModelFile& file, const Expected& vector) {
  std::vector<float> values(vector.cols);
  std::memcpy(values.data(), file.FindTensor(vector.name)->bytes.data(), vector.cols * 4);
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
  const std::vector<uint64_t> shape = expected.rows == 0
                                          ? std::vector<uint64_t>{expected.cols}
                                          : std::vector<uint64_t>{expected.cols, expected.rows};
  if (tensor->shape != shape) {
    return WrongShape(expected, absl::StrCat("[", absl::StrJoin(tensor->shape, ", "), "]"));
  }
  const std::optional<DType> dtype = DTypeFromGguf(tensor->gguf_type);
  if (!dtype || (expected.rows == 0 && *dtype != DType::kF32)) {
    const std::string supported = expected.rows == 0 ? "F32 (for vectors)" : AllDTypeNames();
    return absl::UnimplementedError(
        absl::StrCat("tensor ", expected.name, " has the type ", GgufTypeName(tensor->gguf_type),
                     " (number ", tensor->gguf_type,
                     "), which can't be computed with; convert the model to one of: ", supported));
  }
  TensorSpec spec;
  spec.name = expected.name;
  spec.dtype = *dtype;
  spec.rows = expected.rows == 0 ? 1 : expected.rows;
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
  const uint64_t rows = expected.rows == 0 ? 1 : expected.rows;
  if (spec.rows != rows || spec.cols != expected.cols) {
    return WrongShape(expected, absl::StrCat("[", spec.cols, ", ", spec.rows, "]"));
  }
  if (expected.rows == 0 && spec.dtype != DType::kF32) {
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

absl::Status CheckModelTensors(const ModelConfig& config, const ModelFile& file) {
  RETURN_IF_ERROR(StageTensors(config, file, {0, config.layers}).status());
  RETURN_IF_ERROR(EmbeddingTensor(config, file).status());
  RETURN_IF_ERROR(HeadTensors(config, file).status());
  if (const ModelTensor* freqs = file.FindTensor(kRopeFreqsTensor); freqs != nullptr) {
    std::vector<float> factors(config.rope_dims / 2);
    std::memcpy(factors.data(), freqs->bytes.data(), freqs->bytes.size());
    RETURN_IF_ERROR(CheckRopeFactors(factors));
  }
  absl::flat_hash_set<std::string> known = {"token_embd.weight", "output.weight",
                                            "output_norm.weight", std::string(kRopeFreqsTensor)};
  RETURN_IF_ERROR(CheckFinite(file, ExpectedHeadNorm(config)));
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    for (Expected& expected : ExpectedLayer(config, layer)) {
      if (expected.rows == 0) RETURN_IF_ERROR(CheckFinite(file, expected));
      known.insert(std::move(expected.name));
    }
  }
  for (const ModelTensor& tensor : file.tensors()) {
    if (known.contains(std::string(tensor.name))) continue;
    return absl::UnimplementedError(absl::StrCat("the model has the tensor ",
                                                 Printable(tensor.name),
                                                 ", which would change the result and can't be "
                                                 "computed with; a plain llama model has none"));
  }
  return absl::OkStatus();
}

absl::Status CheckRopeFactors(absl::Span<const float> factors) {
  for (const float factor : factors) {
    if (factor > 0 && std::isfinite(factor)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", kRopeFreqsTensor, " has the value ", factor,
                     "; its values divide angles and must be positive and finite"));
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
  if (file.FindTensor(kRopeFreqsTensor) != nullptr) {
    ASSIGN_OR_RETURN(TensorSpec spec, SpecOf(file, ExpectedRopeFreqs(config)));
    specs.push_back(std::move(spec));
  }
  for (uint32_t layer = layers.first; layer < layers.last; ++layer) {
    for (const Expected& expected : ExpectedLayer(config, layer)) {
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
  size_t used = 0;
  if (const auto found = given.find(kRopeFreqsTensor); found != given.end()) {
    RETURN_IF_ERROR(CheckSpec(ExpectedRopeFreqs(config), *found->second));
    ++used;
  }
  for (uint32_t layer = layers.first; layer < layers.last; ++layer) {
    for (const Expected& expected : ExpectedLayer(config, layer)) {
      const auto found = given.find(expected.name);
      if (found == given.end()) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", expected.name, " is missing"));
      }
      RETURN_IF_ERROR(CheckSpec(expected, *found->second));
      ++used;
    }
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

uint64_t PackedBytes(const TensorSpec& tensor) {
  if (tensor.rows == 1) return tensor.bytes();
  return PackedMatrixBytes(tensor.dtype, tensor.rows, tensor.cols);
}

}  // namespace efedllm
