// libs: efedllm_wire
// Receipts, answers, and kept rows of a peer: refused, or the same when they are written again.
#include <cstdint>
#include <string>
#include <vector>

#include "common/check.h"
#include "wire/frame.h"
#include "wire/receipt_wire.h"

namespace efedllm {
namespace {

void TryReceipt(const std::string& bytes) {
  v1::Receipt message;
  if (!message.ParseFromString(bytes)) return;
  const absl::StatusOr<SignedReceipt> receipt = FromWire(NodeId{1}, message);
  if (!receipt.ok()) return;
  CHECK(FromWire(NodeId{1}, ToWire(*receipt)).value() == *receipt);
  CHECK(!CanonicalBytes(receipt->receipt).empty());
  for (const ChunkClaim& chunk : receipt->receipt.chunks) CHECK(chunk.end() > chunk.first_position);
}

void TryAnswer(const std::string& bytes) {
  v1::ReceiptAnswer message;
  if (!message.ParseFromString(bytes)) return;
  const absl::StatusOr<ReceiptAnswer> answer = FromWire(message);
  if (answer.ok()) CHECK(FromWire(ToWire(*answer)).value().number == answer->number);
}

void TryRows(const std::string& bytes) {
  const grpc::ByteBuffer buffer = SealFrame(bytes);
  const absl::StatusOr<KeptRowsRequest> request = KeptRowsRequestFromWire(buffer);
  if (request.ok()) CHECK(*KeptRowsRequestFromWire(KeptRowsRequestToWire(*request)) == *request);
  const absl::StatusOr<std::vector<CodedRow>> rows = KeptRowsFromWire(buffer, 8, 64);
  if (rows.ok()) CHECK(*KeptRowsFromWire(KeptRowsToWire(*rows), 8, 64) == *rows);
}

}  // namespace
}  // namespace efedllm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      efedllm::TryReceipt(bytes);
      break;
    case 1:
      efedllm::TryAnswer(bytes);
      break;
    default:
      efedllm::TryRows(bytes);
  }
  return 0;
}
