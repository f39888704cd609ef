#include "wire/handover_wire.h"

#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "wire/field_checks.h"
#include "wire/tensor_wire.h"

namespace efedllm {
namespace {

constexpr size_t kMaxMessageBytes = 1024;
constexpr uint64_t kMaxTensors = uint64_t{1} << 15;  // of one prefetch; no model has as many

}  // namespace

v1::HandOver ToWire(const HandOver& hand_over) {
  v1::HandOver message;
  message.set_epoch(hand_over.epoch.v);
  message.set_next_epoch(hand_over.next_epoch.v);
  message.set_to_node(hand_over.to.v);
  message.set_address(hand_over.address);
  return message;
}

v1::HandedOver ToWire(const HandedOver& handed_over) {
  v1::HandedOver message;
  message.set_epoch(handed_over.epoch.v);
  message.set_bytes(handed_over.bytes);
  message.set_message(handed_over.message);
  return message;
}

v1::Prefetch ToWire(const Prefetch& prefetch) {
  v1::Prefetch message;
  for (const TensorSpec& spec : prefetch.tensors) *message.add_tensors() = ToWire(spec);
  return message;
}

absl::StatusOr<HandOver> FromWire(const v1::HandOver& message) {
  RETURN_IF_ERROR(CheckRange("epoch", message.epoch(), 1, kMaxCount));
  RETURN_IF_ERROR(CheckRange("next_epoch", message.next_epoch(), message.epoch() + 1, kMaxCount));
  if (message.to_node() == 0) return WrongField("to_node", "is the coordinator");
  RETURN_IF_ERROR(CheckAddress("address", message.address()));
  if (message.address().front() == ':') return WrongField("address", "has no host");
  return HandOver{Epoch{message.epoch()}, Epoch{message.next_epoch()}, NodeId{message.to_node()},
                  message.address()};
}

absl::StatusOr<HandedOver> FromWire(const v1::HandedOver& message) {
  RETURN_IF_ERROR(CheckRange("epoch", message.epoch(), 1, kMaxCount));
  RETURN_IF_ERROR(CheckRange("bytes", message.bytes(), 0, kMaxCount));
  return HandedOver{Epoch{message.epoch()}, message.bytes(),
                    Printable(message.message(), kMaxMessageBytes)};
}

absl::StatusOr<Prefetch> FromWire(const v1::Prefetch& message) {
  RETURN_IF_ERROR(CheckRange("the number of tensors", static_cast<uint64_t>(message.tensors_size()),
                             0, kMaxTensors));
  Prefetch prefetch;
  prefetch.tensors.reserve(static_cast<size_t>(message.tensors_size()));
  for (const v1::TensorSpec& tensor : message.tensors()) {
    ASSIGN_OR_RETURN(TensorSpec spec, FromWire(tensor));
    prefetch.tensors.push_back(std::move(spec));
  }
  return prefetch;
}

}  // namespace efedllm
