// Writes GGUF files for tests: whole models, and broken ones.
#ifndef EFEDLLM_TESTS_MODEL_GGUF_BUILDER_H_
#define EFEDLLM_TESTS_MODEL_GGUF_BUILDER_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/random.h"
#include "tensor/dtype.h"

namespace efedllm {

// Appends the pieces in the order of the calls; Build puts header, metadata, tensor infos and data
// together. Everything may be set to nonsense.
class GgufBuilder {
 public:
  uint32_t magic = 0x46554747;
  uint32_t version = 3;
  int64_t extra_tensors = 0;  // added to the counts in the header
  int64_t extra_values = 0;
  uint64_t alignment = 32;  // of the data; write general.alignment yourself

  template <class T>
  static void Put(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  static void PutString(std::string& out, absl::string_view text) {
    Put<uint64_t>(out, text.size());
    out.append(text.data(), text.size());
  }

  // body: the value's bytes as the file has them.
  GgufBuilder& Raw(absl::string_view key, uint32_t type, absl::string_view body) {
    PutString(values_, key);
    Put(values_, type);
    values_.append(body.data(), body.size());
    ++value_count_;
    return *this;
  }
  GgufBuilder& Uint(absl::string_view key, uint32_t value) { return Scalar(key, 4, value); }
  GgufBuilder& Float(absl::string_view key, float value) { return Scalar(key, 6, value); }
  GgufBuilder& Bool(absl::string_view key, bool value) {
    return Scalar<uint8_t>(key, 7, value ? 1 : 0);
  }
  GgufBuilder& String(absl::string_view key, absl::string_view value) {
    std::string body;
    PutString(body, value);
    return Raw(key, 8, body);
  }
  GgufBuilder& Strings(absl::string_view key, const std::vector<std::string>& values) {
    std::string body;
    Put<uint32_t>(body, 8);
    Put<uint64_t>(body, values.size());
    for (const std::string& value : values) PutString(body, value);
    return Raw(key, 9, body);
  }
  template <class T>
  GgufBuilder& Scalar(absl::string_view key, uint32_t type, T value) {
    std::string body;
    Put(body, value);
    return Raw(key, type, body);
  }
  template <class T>
  GgufBuilder& Array(absl::string_view key, uint32_t type, const std::vector<T>& values) {
    std::string body;
    Put(body, type);
    Put<uint64_t>(body, values.size());
    for (const T value : values) Put(body, value);
    return Raw(key, 9, body);
  }

  // The data is put behind that of the tensors before, aligned.
  GgufBuilder& Tensor(absl::string_view name, uint32_t type, const std::vector<uint64_t>& shape,
                      absl::string_view data) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment, '\0');
    TensorAt(name, type, shape, data_.size());
    data_.append(data.data(), data.size());
    return *this;
  }
  GgufBuilder& TensorAt(absl::string_view name, uint32_t type, const std::vector<uint64_t>& shape,
                        uint64_t offset) {
    PutString(infos_, name);
    Put<uint32_t>(infos_, static_cast<uint32_t>(shape.size()));
    for (const uint64_t size : shape) Put(infos_, size);
    Put(infos_, type);
    Put(infos_, offset);
    ++tensor_count_;
    return *this;
  }

  std::string Build() const {
    std::string out;
    Put(out, magic);
    Put(out, version);
    Put<uint64_t>(out, tensor_count_ + static_cast<uint64_t>(extra_tensors));
    Put<uint64_t>(out, value_count_ + static_cast<uint64_t>(extra_values));
    absl::StrAppend(&out, values_, infos_);
    out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
    return out + data_;
  }

 private:
  uint64_t value_count_ = 0;
  uint64_t tensor_count_ = 0;
  std::string values_;
  std::string infos_;
  std::string data_;
};

inline absl::Span<const uint8_t> BytesOf(absl::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// n f32 values in [-scale, scale), as bytes.
inline std::string RandomFloats(Random& random, uint64_t n, float scale) {
  std::string out;
  for (uint64_t i = 0; i < n; ++i) {
    GgufBuilder::Put(out, static_cast<float>(random.Uniform() * 2 - 1) * scale);
  }
  return out;
}

// The smallest llama that has everything: 2 layers, width 32, 4 heads of 8, 2 kv heads,
// feed-forward 64, 20 tokens, F32. Nothing in it is trained.
struct TinyLlama {
  uint32_t layers = 2;
  uint32_t d_model = 32;
  uint32_t vocab = 20;
  uint32_t d_ffn = 64;
  uint32_t head_dim = 8;
  std::string architecture = "llama";
  bool tied = false;
  bool rope_freqs = false;
  std::string leave_out;  // a tensor or metadata key that is not written

  GgufBuilder Builder() const {
    GgufBuilder gguf;
    gguf.String("general.architecture", architecture).String("general.name", "tiny");
    const auto uint = [&](absl::string_view key, uint32_t value) {
      if (key != leave_out) gguf.Uint(key, value);
    };
    uint("llama.block_count", layers);
    uint("llama.context_length", 128);
    uint("llama.embedding_length", d_model);
    uint("llama.feed_forward_length", d_ffn);
    uint("llama.attention.head_count", 4);
    uint("llama.attention.head_count_kv", 2);
    uint("llama.rope.dimension_count", head_dim);
    gguf.Float("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    Random random(7);
    const auto tensor = [&](const std::string& name, std::vector<uint64_t> shape, float scale) {
      if (name == leave_out) return;
      uint64_t values = 1;
      for (const uint64_t size : shape) values *= size;
      gguf.Tensor(name, 0, shape, RandomFloats(random, values, scale));
    };
    tensor("token_embd.weight", {d_model, vocab}, 1);
    tensor("output_norm.weight", {d_model}, 1);
    if (!tied) tensor("output.weight", {d_model, vocab}, 1);
    if (rope_freqs) gguf.Tensor("rope_freqs.weight", 0, {head_dim / 2}, Ones(head_dim / 2));
    const uint64_t q = 4 * head_dim, kv = 2 * head_dim;
    for (uint32_t i = 0; i < layers; ++i) {
      const std::string blk = absl::StrCat("blk.", i, ".");
      tensor(blk + "attn_norm.weight", {d_model}, 1);
      tensor(blk + "attn_q.weight", {d_model, q}, 1);
      tensor(blk + "attn_k.weight", {d_model, kv}, 1);
      tensor(blk + "attn_v.weight", {d_model, kv}, 1);
      tensor(blk + "attn_output.weight", {q, d_model}, 1);
      tensor(blk + "ffn_norm.weight", {d_model}, 1);
      tensor(blk + "ffn_gate.weight", {d_model, d_ffn}, 1);
      tensor(blk + "ffn_up.weight", {d_model, d_ffn}, 1);
      tensor(blk + "ffn_down.weight", {d_ffn, d_model}, 1);
    }
    return gguf;
  }
  std::string Build() const { return Builder().Build(); }

  static std::string Ones(uint64_t n) {
    std::string out;
    for (uint64_t i = 0; i < n; ++i) GgufBuilder::Put(out, 1.0f);
    return out;
  }
};

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_MODEL_GGUF_BUILDER_H_
