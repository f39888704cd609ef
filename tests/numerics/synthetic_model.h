// A small model of any architecture that we run, with every tensor type in it: random, and the same
// on every machine (no libm).
#ifndef EFEDLLM_TESTS_NUMERICS_SYNTHETIC_MODEL_H_
#define EFEDLLM_TESTS_NUMERICS_SYNTHETIC_MODEL_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "cluster/architecture.h"
#include "common/random.h"
#include "layers/layers_world.h"
#include "model/factors.h"
#include "model/gguf_builder.h"

namespace efedllm {

class SyntheticModel {
 public:
  static constexpr uint32_t kLayers = 3, kWidth = 256, kHeads = 4, kKvHeads = 2, kHeadDim = 64;
  static constexpr uint32_t kFfn = 256, kVocab = 96, kContext = 256, kExperts = 4, kWindow = 40;

  // The GGUF. factored: two of three matrices of a layer have low-rank factors, one of these
  // instead of the matrix and one beside it. dtypes: that matrices have, in turn.
  static std::string Build(const std::string& architecture, bool factored = false,
                           absl::Span<const DType> dtypes = kAllDtypes) {
    SyntheticModel model(*FindArchitecture(architecture), dtypes);
    model.factored_ = factored;
    return model.Write();
  }

 private:
  SyntheticModel(const Architecture& traits, absl::Span<const DType> dtypes)
      : traits_(traits), dtypes_(dtypes) {}

  float Uniform(float scale) { return static_cast<float>(random_.Uniform() * 2 - 1) * scale; }

  void LayerMatrix(const std::string& part, uint64_t rows, uint64_t cols) {
    const size_t form = factored_ ? parts_++ % 3 : 0;
    if (form != 1) Matrix(part, rows, cols);
    if (form == 0) return;
    constexpr uint64_t kRank = 32;
    Tensor(FactorAName(part), NextType(), kRank, cols);
    DType narrow = NextType();
    while (kRank % BlockValues(narrow) != 0) narrow = NextType();
    Tensor(FactorBName(part), narrow, rows, kRank);
  }

  // Each matrix has another type than the one before.
  DType NextType() { return dtypes_[matrices_++ % dtypes_.size()]; }
  void Matrix(const std::string& name, uint64_t rows, uint64_t cols, uint64_t experts = 0) {
    Tensor(name + ".weight", NextType(), rows, cols, experts);
  }
  void Tensor(const std::string& name, DType dtype, uint64_t rows, uint64_t cols,
              uint64_t experts = 0) {
    std::vector<uint64_t> shape = {cols, rows};
    if (experts > 0) shape.push_back(experts);
    const size_t blocks = rows * std::max<uint64_t>(experts, 1) * cols / BlockValues(dtype);
    std::string data(blocks * BlockBytes(dtype), '\0');
    for (size_t i = 0; i < blocks; ++i) {
      FillBlock(dtype, reinterpret_cast<uint8_t*>(&data[i * BlockBytes(dtype)]));
    }
    gguf_.Tensor(name, static_cast<uint32_t>(dtype), shape, data);
  }

  void FillBlock(DType dtype, uint8_t* p) {
    for (size_t i = 0; i < BlockBytes(dtype); ++i) p[i] = static_cast<uint8_t>(random_.Next());
    const float value = Uniform(0.15f);
    if (dtype == DType::kF32) return void(std::memcpy(p, &value, sizeof value));
    if (dtype == DType::kF16) return StoreF16(value, p);
    if (dtype != DType::kBF16) return StoreScales(QuantFormatOf(dtype), value, p);
    const uint16_t h = F32ToBf16(value);
    std::memcpy(p, &h, sizeof h);
  }

  void Vector(const std::string& name, uint64_t n, float middle, float scale) {
    std::string data;
    for (uint64_t i = 0; i < n; ++i) GgufBuilder::Put(data, middle + Uniform(scale));
    gguf_.Tensor(name, static_cast<uint32_t>(DType::kF32), {n}, data);
  }
  void Norm(const std::string& name, uint64_t n) { Vector(name + ".weight", n, 1, 0.5f); }

  void Metadata() {
    if (factored_) gguf_.Uint(kFactorsVersionKey, kFactorsVersion);
    const std::string name(traits_.name);
    const auto key = [&name](const char* part) { return name + "." + part; };
    gguf_.String("general.architecture", name);
    gguf_.Uint(key("block_count"), kLayers).Uint(key("context_length"), kContext);
    gguf_.Uint(key("embedding_length"), kWidth).Uint(key("feed_forward_length"), kFfn);
    gguf_.Uint(key("attention.head_count"), kHeads);
    gguf_.Uint(key("attention.head_count_kv"), kKvHeads);
    gguf_.Uint(key("attention.key_length"), kHeadDim);
    gguf_.Uint(key("attention.value_length"), kHeadDim);
    gguf_.Float(key("attention.layer_norm_rms_epsilon"), 1e-5f);
    gguf_.Uint(key("attention.sliding_window"), kWindow);
    if (traits_.fused) {
      gguf_.String(key("rope.scaling.type"), "yarn").Float(key("rope.scaling.factor"), 4);
      gguf_.Uint(key("rope.scaling.original_context_length"), kContext / 4);
    }
    if (traits_.experts != Experts::kAlways) return;
    gguf_.Uint(key("expert_count"), kExperts).Uint(key("expert_used_count"), 2);
    gguf_.Uint(key("expert_feed_forward_length"), kFfn);
  }

  void Attention(const std::string& layer) {
    constexpr uint64_t kQ = kHeads * kHeadDim, kKv = kKvHeads * kHeadDim;
    Norm(layer + "attn_norm", kWidth);
    if (traits_.fused) {
      LayerMatrix(layer + "attn_qkv", kQ + 2 * kKv, kWidth);
    } else {
      LayerMatrix(layer + "attn_q", kQ, kWidth);
      LayerMatrix(layer + "attn_k", kKv, kWidth);
      LayerMatrix(layer + "attn_v", kKv, kWidth);
      Vector(layer + "attn_q.bias", kQ, 0, 0.5f);
    }
    if (traits_.qk_norm) Norm(layer + "attn_q_norm", kHeadDim);
    if (traits_.qk_norm) Norm(layer + "attn_k_norm", kHeadDim);
    LayerMatrix(layer + "attn_output", kWidth, kQ);
    if (traits_.post_norms) Norm(layer + "post_attention_norm", kWidth);
  }

  void FeedForward(const std::string& layer) {
    Norm(layer + "ffn_norm", kWidth);
    if (traits_.experts == Experts::kAlways) {
      Matrix(layer + "ffn_gate_inp", kExperts, kWidth);
      Matrix(layer + "ffn_gate_exps", kFfn, kWidth, kExperts);
      Matrix(layer + "ffn_up_exps", kFfn, kWidth, kExperts);
      Matrix(layer + "ffn_down_exps", kWidth, kFfn, kExperts);
    } else {
      if (!traits_.fused) LayerMatrix(layer + "ffn_gate", kFfn, kWidth);
      LayerMatrix(layer + "ffn_up", traits_.fused ? 2 * kFfn : kFfn, kWidth);
      LayerMatrix(layer + "ffn_down", kWidth, kFfn);
    }
    if (traits_.post_norms) Norm(layer + "post_ffw_norm", kWidth);
  }

  std::string Write() {
    Metadata();
    Matrix("token_embd", kVocab, kWidth);
    for (uint32_t i = 0; i < kLayers; ++i) {
      const std::string layer = "blk." + std::to_string(i) + ".";
      Attention(layer);
      FeedForward(layer);
    }
    Norm("output_norm", kWidth);
    Matrix("output", kVocab, kWidth);
    return gguf_.Build();
  }

  const Architecture& traits_;
  const absl::Span<const DType> dtypes_;
  Random random_{31};
  bool factored_ = false;
  size_t matrices_ = 0, parts_ = 0;
  GgufBuilder gguf_;
};

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_NUMERICS_SYNTHETIC_MODEL_H_
