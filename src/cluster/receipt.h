// What a node states about the steps that it computed. Everything in it is a claim until others
// agree or an audit has computed it again: docs/receipts.md.
#ifndef EFEDLLM_CLUSTER_RECEIPT_H_
#define EFEDLLM_CLUSTER_RECEIPT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cluster/model_config.h"
#include "cluster/stage_plan.h"
#include "cluster/tensor_spec.h"
#include "common/ids.h"
#include "common/sha256.h"
#include "common/signing.h"
#include "tensor/kv_type.h"

namespace efedllm {

// A chunk never crosses a multiple of this many positions.
inline constexpr uint32_t kChunkTokens = 64;
inline constexpr size_t kMaxReceiptChunks = 128;

// A row is one token's activation on a hop, by itself: what ActivationCodec::Encode gives for this
// row alone (svd/codec.h), whichever rows stood beside it in the frame. codec: CodecSetting's
// number.
struct CodedRow {
  uint32_t codec = 0;
  std::string bytes;

  friend bool operator==(const CodedRow&, const CodedRow&) = default;
};
// SHA-256 of the codec's number as u32, little-endian, and the bytes.
Sha256Digest RowDigest(uint32_t codec, absl::string_view bytes);
// SHA-256 of the rows' digests, one behind the other.
Sha256Digest ChunkDigest(absl::Span<const Sha256Digest> rows);
// The same of rows.
Sha256Digest DigestOfRows(absl::Span<const CodedRow> rows);

// One side of a chunk.
struct ChunkSide {
  Sha256Digest digest = {};  // ChunkDigest of its rows
  uint32_t codec = 0;        // of its rows; 0: of several codecs
  uint64_t bytes = 0;        // of its rows, as coded

  friend bool operator==(const ChunkSide&, const ChunkSide&) = default;
};

// "I computed positions [first_position, first_position + tokens) of this sequence from these
// inputs, and sent on these outputs."
struct ChunkClaim {
  SequenceId sequence;
  uint32_t first_position = 0;
  uint32_t tokens = 0;  // at least one
  ChunkSide inputs, outputs;

  uint32_t end() const { return first_position + tokens; }
  friend bool operator==(const ChunkClaim&, const ChunkClaim&) = default;
};

struct Receipt {
  NodeId node;
  Epoch epoch;
  uint32_t stage = 0;  // index in its chain
  LayerRange layers;
  // Counts up from 0 per node and epoch: none is left out, none said twice.
  uint64_t number = 0;
  Sha256Digest manifest = {};      // ManifestDigest of what it computed with
  std::vector<ChunkClaim> chunks;  // 1 to kMaxReceiptChunks
  uint64_t compute_micros = 0;     // since the receipt before
  uint64_t wait_micros = 0;        // that frames waited here meanwhile

  friend bool operator==(const Receipt&, const Receipt&) = default;
};

// The bytes that are signed: "eFedLLM receipt 1\n", then every field in the order of declaration,
// numbers little-endian and of fixed size, lists with their count as u32 in front
// (docs/receipts.md).
std::string CanonicalBytes(const Receipt& receipt);

struct SignedReceipt {
  Receipt receipt;
  Signature signature = {};  // by the node's key, of CanonicalBytes

  friend bool operator==(const SignedReceipt&, const SignedReceipt&) = default;
};
SignedReceipt SignReceipt(Receipt receipt, const SigningKey& key);
// That the key is the node's, and the signature the key's.
bool VerifyReceipt(const SignedReceipt& receipt, const PublicKey& key);

// What the coordinator signs when it has taken a receipt: "eFedLLM countersignature 1\n", the
// SHA-256 of CanonicalBytes, and the node's signature.
std::string CountersignedBytes(const SignedReceipt& receipt);

// What a stage computes with. Both ends know it from the assignment.
struct Manifest {
  uint32_t numerics = 0;  // of docs/numerics.md; others are never compared
  ModelConfig config;
  LayerRange layers;
  KvType kv_type = KvType::kF32;
  uint32_t input_codec = 0, output_codec = 0;             // CodecSetting's numbers
  std::optional<Sha256Digest> input_basis, output_basis;  // ids of the bases' tensors
  std::vector<Sha256Digest> tensors;                      // TensorSpec::id() of each, in order
};
// SHA-256 over "eFedLLM manifest 1\n" and all of it.
Sha256Digest ManifestDigest(const Manifest& manifest);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_RECEIPT_H_
