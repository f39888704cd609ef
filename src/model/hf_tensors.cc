#include "model/hf_tensors.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "tensor/blocks.h"
#include "tensor/dtype.h"

namespace efedllm {
namespace {

struct NamePair {
  absl::string_view hf;
  absl::string_view gguf;
};

// Behind "model.layers.N."; the same for all kinds that have the tensor.
const NamePair kLayerNames[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.o_proj.bias", "attn_output.bias"},
    {"self_attn.qkv_proj.weight", "attn_qkv.weight"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.gate_proj.bias", "ffn_gate.bias"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.up_proj.bias", "ffn_up.bias"},
    {"mlp.gate_up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.down_proj.bias", "ffn_down.bias"},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight"},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight"},
    {"block_sparse_moe.gate.weight", "ffn_gate_inp.weight"},
    {"mlp.gate.weight", "ffn_gate_inp.weight"},
};

// Behind "model.layers.N.<...>experts.E.".
const NamePair kExpertNames[] = {
    {"w1.weight", "ffn_gate_exps.weight"},        {"w2.weight", "ffn_down_exps.weight"},
    {"w3.weight", "ffn_up_exps.weight"},          {"gate_proj.weight", "ffn_gate_exps.weight"},
    {"down_proj.weight", "ffn_down_exps.weight"}, {"up_proj.weight", "ffn_up_exps.weight"},
};

absl::string_view Find(absl::Span<const NamePair> names, absl::string_view hf) {
  for (const NamePair& pair : names) {
    if (pair.hf == hf) return pair.gguf;
  }
  return "";
}

// Where a tensor goes.
struct Place {
  std::string name;  // empty: it is not needed
  std::optional<uint64_t> expert;
};

// Takes "17." off the front.
std::optional<uint64_t> ConsumeNumber(absl::string_view& text) {
  const size_t dot = text.find('.');
  uint64_t number = 0;
  if (dot == absl::string_view::npos || !absl::SimpleAtoi(text.substr(0, dot), &number)) {
    return std::nullopt;
  }
  text.remove_prefix(dot + 1);
  return number;
}

// nullopt: this kind of model has no such tensor.
std::optional<Place> PlaceOfLayer(const HfModel& facts, absl::string_view name) {
  const std::optional<uint64_t> layer = ConsumeNumber(name);
  if (!layer.has_value()) return std::nullopt;
  if (absl::EndsWith(name, "rotary_emb.inv_freq")) return Place{};  // follows from the config
  const std::string block = absl::StrCat("blk.", *layer, ".");
  if (name == "post_attention_layernorm.weight") {
    return Place{
        block + (facts.kind->post_norms ? "post_attention_norm.weight" : "ffn_norm.weight"),
        std::nullopt};
  }
  if (const absl::string_view gguf = Find(kLayerNames, name); !gguf.empty()) {
    return Place{absl::StrCat(block, gguf), std::nullopt};
  }
  if (!absl::ConsumePrefix(&name, "block_sparse_moe.experts.") &&
      !absl::ConsumePrefix(&name, "mlp.experts.")) {
    return std::nullopt;
  }
  const std::optional<uint64_t> expert = ConsumeNumber(name);
  const absl::string_view gguf = Find(kExpertNames, name);
  if (!expert.has_value() || *expert >= facts.experts || gguf.empty()) return std::nullopt;
  return Place{absl::StrCat(block, gguf), *expert};
}

std::optional<Place> PlaceOf(const HfModel& facts, absl::string_view name) {
  if (facts.kind->model_type == "gemma3") {  // with images, of which we read the text part
    absl::ConsumePrefix(&name, "model.");
    if (absl::StartsWith(name, "vision_tower.") ||
        absl::StartsWith(name, "multi_modal_projector.")) {
      return Place{};
    }
    absl::ConsumePrefix(&name, "language_model.");
  }
  absl::ConsumePrefix(&name, "model.");
  if (absl::ConsumePrefix(&name, "layers.")) return PlaceOfLayer(facts, name);
  if (name == "embed_tokens.weight") return Place{"token_embd.weight", std::nullopt};
  if (name == "norm.weight") return Place{"output_norm.weight", std::nullopt};
  if (name == "lm_head.weight") return Place{facts.tied ? "" : "output.weight", std::nullopt};
  if (name == "rotary_emb.inv_freq") return Place{};
  return std::nullopt;
}

absl::StatusOr<DType> DTypeOf(const SafetensorsTensor& tensor) {
  if (tensor.dtype == "F32") return DType::kF32;
  if (tensor.dtype == "F16") return DType::kF16;
  if (tensor.dtype == "BF16") return DType::kBF16;
  return absl::UnimplementedError(absl::StrCat("tensor ", Printable(tensor.name), " has the type ",
                                               Printable(tensor.dtype),
                                               ", which is not supported (supported: F32, F16, "
                                               "BF16)"));
}

// GGUF's order.
std::vector<uint64_t> ShapeOf(const SafetensorsTensor& tensor) {
  return {tensor.shape.rbegin(), tensor.shape.rend()};
}

std::vector<float> ToF32(const SafetensorsTensor& tensor, DType dtype) {
  std::vector<float> values(tensor.bytes.size() / BlockBytes(dtype));
  DequantizeRow(dtype, tensor.bytes.data(), values.size(), values.data());
  return values;
}

// The matrices of one layer's experts.
struct ExpertMatrices {
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;                                  // of one
  absl::btree_map<uint64_t, absl::Span<const uint8_t>> pieces;  // by expert
};

class Adder {
 public:
  Adder(const HfModel& facts, ModelContents& model) : facts_(facts), model_(model) {}

  absl::Status Add(const SafetensorsTensor& tensor) {
    const std::optional<Place> place = PlaceOf(facts_, tensor.name);
    if (!place.has_value()) {
      return absl::UnimplementedError(
          absl::StrCat("tensor ", Printable(tensor.name), " is none that a ", facts_.kind->name,
                       " has: it would change the result, and is not supported"));
    }
    if (place->name.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const DType dtype, DTypeOf(tensor));
    if (tensor.shape.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Printable(tensor.name), " is a single number"));
    }
    if (place->expert.has_value()) return AddExpert(tensor, dtype, *place);
    if (facts_.kind->gguf_permutes && RowsToPermute(place->name) != 0) {
      return AddPermuted(tensor, dtype, place->name);
    }
    if (tensor.shape.size() == 1 || absl::EndsWith(place->name, "ffn_gate_inp.weight")) {
      std::vector<float> values = ToF32(tensor, dtype);
      if (facts_.kind->one_plus_norms && absl::EndsWith(place->name, "norm.weight")) {
        for (float& value : values) value += 1;
      }
      model_.AddF32(place->name, ShapeOf(tensor), std::move(values));
      return absl::OkStatus();
    }
    AddTensor(place->name, dtype, ShapeOf(tensor)).bytes = tensor.bytes;
    return absl::OkStatus();
  }

  // After the last Add.
  absl::Status AddExperts() {
    for (auto& [name, experts] : experts_) {
      // All are below the count (PlaceOfLayer), so that the first gap is the missing one.
      uint64_t next = 0;
      for (const auto& [expert, bytes] : experts.pieces) next += expert == next ? 1 : 0;
      if (next != facts_.experts) {
        return absl::InvalidArgumentError(
            absl::StrCat("expert ", next, " of ", facts_.experts, " has no matrix for ", name));
      }
      std::vector<uint64_t> shape = std::move(experts.shape);
      shape.push_back(facts_.experts);
      ModelTensor& tensor = AddTensor(name, experts.dtype, std::move(shape));
      for (const auto& [expert, bytes] : experts.pieces) tensor.pieces.push_back(bytes);
    }
    return absl::OkStatus();
  }

 private:
  ModelTensor& AddTensor(absl::string_view name, DType dtype, std::vector<uint64_t> shape) {
    ModelTensor& tensor = model_.tensors.emplace_back();
    tensor.name = model_.Keep(std::string(name));
    tensor.gguf_type = static_cast<uint32_t>(dtype);
    tensor.shape = std::move(shape);
    return tensor;
  }

  // Of a layer's Q or K, weight or bias. 0: it is another tensor.
  uint64_t RowsToPermute(absl::string_view name) const {
    if (absl::StrContains(name, ".attn_q.")) return facts_.heads * facts_.head_dim;
    if (absl::StrContains(name, ".attn_k.")) return facts_.kv_heads * facts_.head_dim;
    return 0;
  }

  // GGUF's row 2i + j of a head is row i of its half j.
  absl::Status AddPermuted(const SafetensorsTensor& tensor, DType dtype, absl::string_view name) {
    const uint64_t rows = RowsToPermute(name);
    if (tensor.shape[0] != rows || facts_.head_dim % 2 != 0) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Printable(tensor.name), " has ",
                                                     tensor.shape[0], " rows; heads of ",
                                                     facts_.head_dim, " values have ", rows));
    }
    std::vector<uint64_t> from(rows);
    for (uint64_t row = 0; row < rows; ++row) {
      const uint64_t in_head = row % facts_.head_dim;
      from[row] = row - in_head + in_head % 2 * (facts_.head_dim / 2) + in_head / 2;
    }
    if (tensor.shape.size() == 1) {
      const std::vector<float> values = ToF32(tensor, dtype);
      std::vector<float> permuted;
      permuted.reserve(rows);
      for (const uint64_t row : from) permuted.push_back(values[row]);
      model_.AddF32(name, ShapeOf(tensor), std::move(permuted));
      return absl::OkStatus();
    }
    const uint64_t row_bytes = tensor.bytes.size() / rows;
    ModelTensor& added = AddTensor(name, dtype, ShapeOf(tensor));
    for (const uint64_t row : from) {
      added.pieces.push_back(tensor.bytes.subspan(row * row_bytes, row_bytes));
    }
    return absl::OkStatus();
  }

  absl::Status AddExpert(const SafetensorsTensor& tensor, DType dtype, const Place& place) {
    ExpertMatrices& experts = experts_[place.name];
    if (experts.pieces.empty()) {
      experts.dtype = dtype;
      experts.shape = ShapeOf(tensor);
    }
    if (tensor.shape.size() != 2 || experts.dtype != dtype || experts.shape != ShapeOf(tensor)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Printable(tensor.name),
                       " has not the type and shape of the other experts' matrices"));
    }
    experts.pieces[*place.expert] = tensor.bytes;
    return absl::OkStatus();
  }

  const HfModel& facts_;
  ModelContents& model_;
  absl::btree_map<std::string, ExpertMatrices> experts_;
};

}  // namespace

absl::Status AddHfTensors(const HfModel& facts, const std::vector<SafetensorsTensor>& tensors,
                          ModelContents& model) {
  Adder adder(facts, model);
  for (const SafetensorsTensor& tensor : tensors) RETURN_IF_ERROR(adder.Add(tensor));
  RETURN_IF_ERROR(adder.AddExperts());
  const bool has_head = std::any_of(model.tensors.begin(), model.tensors.end(),
                                    [](const ModelTensor& t) { return t.name == "output.weight"; });
  if (facts.tied || has_head) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "there is no tensor lm_head.weight, and config.json doesn't tie it to the embedding "
      "(\"tie_word_embeddings\")");
}

}  // namespace efedllm
