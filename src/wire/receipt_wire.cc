#include "wire/receipt_wire.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "wire/frame.h"

namespace efedllm {
namespace {

constexpr size_t kMaxRefusalBytes = 500;
constexpr size_t kMaxRequestBytes = 128;
constexpr uint32_t kMaxVersion = 1024;

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed receipt: ", what));
}
absl::Status MalformedRows(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed kept rows: ", what));
}

template <class Array>
std::string BytesOf(const Array& array) {
  return std::string(array.begin(), array.end());
}

template <class Array>
absl::Status Take(const std::string& bytes, absl::string_view name, Array& array) {
  if (bytes.size() != array.size()) {
    return Malformed(absl::StrCat(name, " has ", bytes.size(), " bytes, not ", array.size()));
  }
  std::copy(bytes.begin(), bytes.end(), array.begin());
  return absl::OkStatus();
}

v1::ChunkSide ToWire(const ChunkSide& side) {
  v1::ChunkSide message;
  message.set_digest(BytesOf(side.digest));
  message.set_codec(side.codec);
  message.set_bytes(side.bytes);
  return message;
}

absl::Status Take(const v1::ChunkSide& message, absl::string_view name, ChunkSide& side) {
  RETURN_IF_ERROR(Take(message.digest(), name, side.digest));
  side.codec = message.codec();
  side.bytes = message.bytes();
  return absl::OkStatus();
}

absl::Status Take(const v1::ChunkClaim& message, ChunkClaim& chunk) {
  chunk.sequence = SequenceId{message.sequence()};
  chunk.first_position = message.first_position();
  chunk.tokens = message.tokens();
  const uint64_t end = uint64_t{chunk.first_position} + chunk.tokens;
  if (chunk.tokens == 0 || end > UINT32_MAX ||
      chunk.first_position / kChunkTokens != (end - 1) / kChunkTokens) {
    return Malformed(
        absl::StrCat("a chunk of ", chunk.tokens, " positions from ", chunk.first_position, " on"));
  }
  RETURN_IF_ERROR(Take(message.inputs(), "the inputs' digest", chunk.inputs));
  return Take(message.outputs(), "the outputs' digest", chunk.outputs);
}

}  // namespace

Sha256Digest ManifestOf(const Assignment& assignment) {
  Manifest manifest;
  manifest.numerics = kNumericsId;
  manifest.config = assignment.config;
  manifest.layers = assignment.layers;
  manifest.kv_type = assignment.kv_type;
  manifest.input_codec = assignment.upstream_codec.number();
  manifest.output_codec = assignment.codec.number();
  if (assignment.upstream_basis) manifest.input_basis = assignment.upstream_basis->id();
  if (assignment.downstream_basis) manifest.output_basis = assignment.downstream_basis->id();
  manifest.tensors.reserve(assignment.tensors.size());
  for (const TensorSpec& tensor : assignment.tensors) manifest.tensors.push_back(tensor.id());
  return ManifestDigest(manifest);
}

void DigestRows(const EncodedRows& rows, uint32_t codec, std::vector<RowSide>& sides) {
  sides.clear();
  absl::string_view rest = rows.bytes;
  for (const uint32_t size : rows.sizes) {
    sides.push_back({RowDigest(codec, rest.substr(0, size)), codec, size});
    rest.remove_prefix(size);
  }
}

v1::Receipt ToWire(const SignedReceipt& signed_receipt) {
  const Receipt& receipt = signed_receipt.receipt;
  v1::Receipt message;
  message.set_epoch(receipt.epoch.v);
  message.set_stage(receipt.stage);
  message.set_first_layer(receipt.layers.first);
  message.set_last_layer(receipt.layers.last);
  message.set_number(receipt.number);
  message.set_manifest(BytesOf(receipt.manifest));
  for (const ChunkClaim& chunk : receipt.chunks) {
    v1::ChunkClaim* out = message.add_chunks();
    out->set_sequence(chunk.sequence.v);
    out->set_first_position(chunk.first_position);
    out->set_tokens(chunk.tokens);
    *out->mutable_inputs() = ToWire(chunk.inputs);
    *out->mutable_outputs() = ToWire(chunk.outputs);
  }
  message.set_compute_micros(receipt.compute_micros);
  message.set_wait_micros(receipt.wait_micros);
  message.set_signature(BytesOf(signed_receipt.signature));
  return message;
}

v1::ReceiptAnswer ToWire(const ReceiptAnswer& answer) {
  v1::ReceiptAnswer message;
  message.set_epoch(answer.epoch.v);
  message.set_number(answer.number);
  if (answer.countersignature) message.set_countersignature(BytesOf(*answer.countersignature));
  message.set_refusal(answer.refusal);
  return message;
}

absl::StatusOr<SignedReceipt> FromWire(NodeId node, const v1::Receipt& message) {
  SignedReceipt result;
  Receipt& receipt = result.receipt;
  receipt.node = node;
  receipt.epoch = Epoch{message.epoch()};
  receipt.stage = message.stage();
  receipt.layers = {message.first_layer(), message.last_layer()};
  if (receipt.layers.first >= receipt.layers.last) {
    return Malformed(absl::StrCat("layers ", receipt.layers.first, " to ", receipt.layers.last));
  }
  receipt.number = message.number();
  RETURN_IF_ERROR(Take(message.manifest(), "its manifest", receipt.manifest));
  const auto chunks = static_cast<size_t>(message.chunks_size());
  if (chunks == 0 || chunks > kMaxReceiptChunks) {
    return Malformed(absl::StrCat(chunks, " chunks; 1 to ", kMaxReceiptChunks, " can be right"));
  }
  receipt.chunks.resize(chunks);
  for (size_t i = 0; i < chunks; ++i) {
    RETURN_IF_ERROR(Take(message.chunks(static_cast<int>(i)), receipt.chunks[i]));
  }
  receipt.compute_micros = message.compute_micros();
  receipt.wait_micros = message.wait_micros();
  RETURN_IF_ERROR(Take(message.signature(), "its signature", result.signature));
  return result;
}

absl::StatusOr<ReceiptAnswer> FromWire(const v1::ReceiptAnswer& message) {
  ReceiptAnswer answer;
  answer.epoch = Epoch{message.epoch()};
  answer.number = message.number();
  answer.refusal = Printable(message.refusal(), kMaxRefusalBytes);
  if (!message.countersignature().empty()) {
    RETURN_IF_ERROR(Take(message.countersignature(), "the countersignature",
                         answer.countersignature.emplace()));
  }
  return answer;
}

grpc::ByteBuffer KeptRowsRequestToWire(const KeptRowsRequest& request) {
  v1::KeptRowsRequest message;
  message.set_epoch(request.epoch.v);
  message.set_sequence(request.sequence.v);
  message.set_first_position(request.first_position);
  message.set_tokens(request.tokens);
  message.set_outputs(request.outputs);
  message.set_version(request.version);
  return SealMessage(message);
}

absl::StatusOr<KeptRowsRequest> KeptRowsRequestFromWire(const grpc::ByteBuffer& bytes) {
  v1::KeptRowsRequest message;
  if (bytes.Length() > kMaxRequestBytes) return MalformedRows("the request is too long");
  RETURN_IF_ERROR(OpenMessage(bytes, message));
  if (message.tokens() == 0 || message.tokens() > kMaxKeptRowsTokens ||
      uint64_t{message.first_position()} + message.tokens() > UINT32_MAX ||
      message.version() > kMaxVersion) {
    return MalformedRows(absl::StrCat(message.tokens(), " positions from ",
                                      message.first_position(), " on, version ",
                                      message.version()));
  }
  return KeptRowsRequest{.epoch = Epoch{message.epoch()},
                         .sequence = SequenceId{message.sequence()},
                         .first_position = message.first_position(),
                         .tokens = message.tokens(),
                         .outputs = message.outputs(),
                         .version = message.version()};
}

grpc::ByteBuffer KeptRowsToWire(const std::vector<CodedRow>& rows) {
  v1::KeptRowsReply message;
  for (const CodedRow& row : rows) {
    v1::KeptRowsReply::Row* out = message.add_rows();
    out->set_codec(row.codec);
    out->set_row(row.bytes);
  }
  return SealMessage(message);
}

absl::StatusOr<std::vector<CodedRow>> KeptRowsFromWire(const grpc::ByteBuffer& bytes,
                                                       size_t most_rows, size_t most_row_bytes) {
  constexpr size_t kRowOverhead = 32;
  const size_t most_bytes = kKeptRowsReplyBytes + most_row_bytes +
                            kRowOverhead * std::min<size_t>(most_rows, kKeptRowsReplyBytes);
  v1::KeptRowsReply message;
  if (bytes.Length() > most_bytes) return MalformedRows("the answer is too long");
  RETURN_IF_ERROR(OpenMessage(bytes, message));
  const auto count = static_cast<size_t>(message.rows_size());
  if (count == 0 || count > most_rows) {
    return MalformedRows(absl::StrCat(count, " rows where ", most_rows, " were asked for"));
  }
  std::vector<CodedRow> rows;
  rows.reserve(count);
  for (v1::KeptRowsReply::Row& row : *message.mutable_rows()) {
    if (row.row().size() > most_row_bytes) {
      return MalformedRows(absl::StrCat("a row of ", row.row().size(), " bytes"));
    }
    rows.push_back({row.codec(), std::move(*row.mutable_row())});
  }
  return rows;
}

}  // namespace efedllm
