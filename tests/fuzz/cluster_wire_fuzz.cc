// libs: efedllm_wire
// Any bytes as each control message: a Status or a value that survives the way there and back. The
// first byte chooses the message.
#include <cstddef>
#include <cstdint>

#include "common/check.h"
#include "wire/cluster_wire.h"
#include "wire/handover_wire.h"
#include "wire/link_wire.h"

namespace {

template <class Message>
void RoundTrip(const uint8_t* data, size_t size) {
  Message message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return;
  const auto value = efedllm::FromWire(message);
  if (!value.ok()) return;
  CHECK(efedllm::FromWire(efedllm::ToWire(*value)).ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  switch (data[0] % 10) {
    case 0:
      RoundTrip<efedllm::v1::Hello>(data + 1, size - 1);
      break;
    case 1:
      RoundTrip<efedllm::v1::Assignment>(data + 1, size - 1);
      break;
    case 2:
      RoundTrip<efedllm::v1::StageStatus>(data + 1, size - 1);
      break;
    case 3:
      RoundTrip<efedllm::v1::Heartbeat>(data + 1, size - 1);
      break;
    case 4:
      RoundTrip<efedllm::v1::MeasureLinks>(data + 1, size - 1);
      break;
    case 5:
      RoundTrip<efedllm::v1::LinkReport>(data + 1, size - 1);
      break;
    case 6:
      RoundTrip<efedllm::v1::Pong>(data + 1, size - 1);
      break;
    case 7:
      RoundTrip<efedllm::v1::HandOver>(data + 1, size - 1);
      break;
    case 8:
      RoundTrip<efedllm::v1::HandedOver>(data + 1, size - 1);
      break;
    default:
      RoundTrip<efedllm::v1::Prefetch>(data + 1, size - 1);
      break;
  }
  return 0;
}
