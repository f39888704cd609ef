// libs: efedllm_wire
// Heads of the ledger that a peer sends, and files of heads: refused, or the same when they are
// written again.
#include <cstdint>
#include <string>
#include <vector>

#include "cluster/ledger_head_json.h"
#include "common/check.h"
#include "wire/ledger_wire.h"

namespace efedllm {
namespace {

template <class Message>
void TryMessage(const std::string& bytes) {
  Message message;
  if (!message.ParseFromString(bytes)) return;
  const auto domain = FromWire(message);
  if (!domain.ok()) return;
  CHECK(FromWire(ToWire(*domain)).value() == *domain);
}

void TryOfferAgainstHead(const std::string& bytes) {
  v1::LedgerHeadOffer message;
  if (!message.ParseFromString(bytes)) return;
  const auto offer = FromWire(message);
  if (!offer.ok()) return;
  LedgerHead older = offer->head.head;
  older.size = older.size / 2 + 1;
  CheckHeadFollows(older, offer->head.head, offer->proof).IgnoreError();
}

void TryFile(const std::string& bytes) {
  const auto heads = ParseHeads(bytes);
  if (!heads.ok()) return;
  for (const SignedLedgerHead& head : *heads) {
    CHECK(ParseHeads(HeadToJson(head)).value().at(0) == head);
  }
}

}  // namespace
}  // namespace efedllm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      efedllm::TryMessage<efedllm::v1::LedgerHeadOffer>(bytes);
      break;
    case 1:
      efedllm::TryMessage<efedllm::v1::HeldLedgerHead>(bytes);
      break;
    case 2:
      efedllm::TryOfferAgainstHead(bytes);
      break;
    default:
      efedllm::TryFile(bytes);
  }
  return 0;
}
