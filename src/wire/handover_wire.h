// How KV and weights get to a node before it needs them <-> domain types, every field checked.
#ifndef EFEDLLM_WIRE_HANDOVER_WIRE_H_
#define EFEDLLM_WIRE_HANDOVER_WIRE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/tensor_spec.h"
#include "common/ids.h"
#include "efedllm/cluster.pb.h"

namespace efedllm {

// A worker is to send the KV of the stage that it runs to the node that will hold it next.
struct HandOver {
  Epoch epoch;       // of the stage that it runs
  Epoch next_epoch;  // of the stage that the other one has prepared
  NodeId to;
  std::string address;  // HOST:PORT
};

struct HandedOver {
  Epoch epoch;
  uint64_t bytes = 0;
  std::string message;  // printable; why it failed; empty: it did not
};

// Weights that a worker may need soon.
struct Prefetch {
  std::vector<TensorSpec> tensors;  // with all chunk digests
};

// ToWire: our own values, valid by construction. FromWire: InvalidArgument names the field.
v1::HandOver ToWire(const HandOver& hand_over);
v1::HandedOver ToWire(const HandedOver& handed_over);
v1::Prefetch ToWire(const Prefetch& prefetch);

absl::StatusOr<HandOver> FromWire(const v1::HandOver& message);
absl::StatusOr<HandedOver> FromWire(const v1::HandedOver& message);
absl::StatusOr<Prefetch> FromWire(const v1::Prefetch& message);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_HANDOVER_WIRE_H_
