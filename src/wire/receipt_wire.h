// Receipts, answers to them, and kept rows <-> domain types, every field checked.
#ifndef EFEDLLM_WIRE_RECEIPT_WIRE_H_
#define EFEDLLM_WIRE_RECEIPT_WIRE_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/chunk_record.h"
#include "cluster/receipt.h"
#include "common/ids.h"
#include "common/sha256.h"
#include "common/signing.h"
#include "efedllm/receipt.pb.h"
#include "svd/encoded_rows.h"
#include "wire/cluster_wire.h"

namespace efedllm {

// Of what a stage of this assignment computes with.
Sha256Digest ManifestOf(const Assignment& assignment);

// The sides of rows that were coded so: what records of chunks are made of.
void DigestRows(const EncodedRows& rows, uint32_t codec, std::vector<RowSide>& sides);

// What the coordinator makes of a receipt.
struct ReceiptAnswer {
  Epoch epoch;
  uint64_t number = 0;
  std::optional<Signature> countersignature;  // of CountersignedBytes; nullopt: refused
  std::string refusal;                        // printable

  friend bool operator==(const ReceiptAnswer&, const ReceiptAnswer&) = default;
};

v1::Receipt ToWire(const SignedReceipt& receipt);
v1::ReceiptAnswer ToWire(const ReceiptAnswer& answer);
// InvalidArgument names the field. node: whose stream it came on. Checked: 1 to kMaxReceiptChunks
// chunks of 1 to kChunkTokens positions within one multiple of it, none overflowing; layers; sizes
// of digests and signatures.
absl::StatusOr<SignedReceipt> FromWire(NodeId node, const v1::Receipt& message);
absl::StatusOr<ReceiptAnswer> FromWire(const v1::ReceiptAnswer& message);

// Positions [first_position, first_position + tokens) of a sequence on one side of a stage.
struct KeptRowsRequest {
  Epoch epoch;  // one in which the node had the stage, or an earlier one that it went on with
  SequenceId sequence;
  uint32_t first_position = 0;
  uint32_t tokens = 0;
  bool outputs = false;
  uint32_t version = 0;  // 0: what was computed last at these positions, 1: before that, …

  friend bool operator==(const KeptRowsRequest&, const KeptRowsRequest&) = default;
};
inline constexpr uint32_t kMaxKeptRowsTokens = 1u << 20;
// A node keeps so many of the rows that it signed for last, at least; forks count as they do there.
inline constexpr uint64_t kRowsToKeep = 1u << 15;
// An answer has at most so many bytes of rows, and at least one row.
inline constexpr size_t kKeptRowsReplyBytes = 512 << 10;

grpc::ByteBuffer KeptRowsRequestToWire(const KeptRowsRequest& request);
absl::StatusOr<KeptRowsRequest> KeptRowsRequestFromWire(const grpc::ByteBuffer& bytes);
// rows: the first of those that were asked for.
grpc::ByteBuffer KeptRowsToWire(const std::vector<CodedRow>& rows);
// InvalidArgument: no rows, more than most_rows, or larger ones than most_row_bytes.
absl::StatusOr<std::vector<CodedRow>> KeptRowsFromWire(const grpc::ByteBuffer& bytes,
                                                       size_t most_rows, size_t most_row_bytes);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_RECEIPT_WIRE_H_
