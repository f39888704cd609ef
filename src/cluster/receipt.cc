#include "cluster/receipt.h"

#include <array>
#include <bit>
#include <type_traits>
#include <utility>

namespace efedllm {
namespace {

absl::Span<const uint8_t> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Numbers little-endian and of fixed size; texts and lists with their count in front.
class CanonicalWriter {
 public:
  explicit CanonicalWriter(absl::string_view kind) : bytes_(kind) {}

  template <class T>
  CanonicalWriter& Number(T value) {
    static_assert(std::is_unsigned_v<T>);
    for (size_t i = 0; i < sizeof(T); ++i) {
      bytes_.push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i)));
    }
    return *this;
  }
  CanonicalWriter& Real(float value) { return Number(std::bit_cast<uint32_t>(value)); }
  CanonicalWriter& Digest(const Sha256Digest& digest) {
    bytes_.append(reinterpret_cast<const char*>(digest.data()), digest.size());
    return *this;
  }
  CanonicalWriter& Count(size_t count) { return Number(static_cast<uint32_t>(count)); }
  CanonicalWriter& Text(absl::string_view text) {
    Count(text.size());
    bytes_.append(text.data(), text.size());
    return *this;
  }
  CanonicalWriter& Layers(const LayerRange& layers) {
    return Number(layers.first).Number(layers.last);
  }
  CanonicalWriter& Side(const ChunkSide& side) {
    return Digest(side.digest).Number(side.codec).Number(side.bytes);
  }
  CanonicalWriter& MaybeDigest(const std::optional<Sha256Digest>& digest) {
    Number(static_cast<uint8_t>(digest ? 1 : 0));
    return digest ? Digest(*digest) : *this;
  }

  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

void Write(const ModelConfig& config, CanonicalWriter& out) {
  out.Text(config.architecture).Text(config.name);
  for (const uint32_t number :
       {config.layers, config.d_model, config.heads, config.kv_heads, config.head_dim, config.d_ffn,
        config.experts, config.experts_used, config.vocab, config.context, config.window,
        config.window_period}) {
    out.Number(number);
  }
  for (const float number : {config.norm_epsilon, config.attention_scale, config.attention_soft_cap,
                             config.final_soft_cap}) {
    out.Real(number);
  }
  const RopeConfig& rope = config.rope;
  out.Number(rope.dims).Real(rope.base).Number(static_cast<uint8_t>(rope.scaling));
  out.Real(rope.factor).Number(rope.original_context);
  out.Real(rope.beta_fast).Real(rope.beta_slow).Real(rope.magnitude);
}

}  // namespace

Sha256Digest RowDigest(uint32_t codec, absl::string_view bytes) {
  thread_local Sha256Hasher hasher;
  const std::array<uint8_t, 4> number = {
      static_cast<uint8_t>(codec), static_cast<uint8_t>(codec >> 8),
      static_cast<uint8_t>(codec >> 16), static_cast<uint8_t>(codec >> 24)};
  hasher.Add(number);
  hasher.Add(AsBytes(bytes));
  return hasher.Finish();
}

Sha256Digest ChunkDigest(absl::Span<const Sha256Digest> rows) {
  thread_local Sha256Hasher hasher;
  for (const Sha256Digest& row : rows) hasher.Add(row);
  return hasher.Finish();
}

Sha256Digest DigestOfRows(absl::Span<const CodedRow> rows) {
  std::vector<Sha256Digest> digests;
  digests.reserve(rows.size());
  for (const CodedRow& row : rows) digests.push_back(RowDigest(row.codec, row.bytes));
  return ChunkDigest(digests);
}

std::string CanonicalBytes(const Receipt& receipt) {
  CanonicalWriter out("eFedLLM receipt 1\n");
  out.Number(receipt.node.v).Number(receipt.epoch.v).Number(receipt.stage);
  out.Layers(receipt.layers).Number(receipt.number).Digest(receipt.manifest);
  out.Count(receipt.chunks.size());
  for (const ChunkClaim& chunk : receipt.chunks) {
    out.Number(chunk.sequence.v).Number(chunk.first_position).Number(chunk.tokens);
    out.Side(chunk.inputs).Side(chunk.outputs);
  }
  out.Number(receipt.compute_micros).Number(receipt.wait_micros);
  return out.Take();
}

SignedReceipt SignReceipt(Receipt receipt, const SigningKey& key) {
  const Signature signature = key.Sign(CanonicalBytes(receipt));
  return {std::move(receipt), signature};
}

bool VerifyReceipt(const SignedReceipt& receipt, const PublicKey& key) {
  return NodeOfPublicKey(key) == receipt.receipt.node &&
         Verify(key, CanonicalBytes(receipt.receipt), receipt.signature);
}

std::string CountersignedBytes(const SignedReceipt& receipt) {
  CanonicalWriter out("eFedLLM countersignature 1\n");
  out.Digest(Sha256(AsBytes(CanonicalBytes(receipt.receipt))));
  for (const uint8_t byte : receipt.signature) out.Number(byte);
  return out.Take();
}

Sha256Digest ManifestDigest(const Manifest& manifest) {
  CanonicalWriter out("eFedLLM manifest 1\n");
  out.Number(manifest.numerics);
  Write(manifest.config, out);
  out.Layers(manifest.layers).Number(static_cast<uint32_t>(manifest.kv_type));
  out.Number(manifest.input_codec).Number(manifest.output_codec);
  out.MaybeDigest(manifest.input_basis).MaybeDigest(manifest.output_basis);
  out.Count(manifest.tensors.size());
  for (const Sha256Digest& tensor : manifest.tensors) out.Digest(tensor);
  return Sha256(AsBytes(out.Take()));
}

}  // namespace efedllm
