// What worker and coordinator say about links and clocks <-> domain types, every field checked.
#ifndef EFEDLLM_WIRE_LINK_WIRE_H_
#define EFEDLLM_WIRE_LINK_WIRE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster/link.h"
#include "common/ids.h"
#include "efedllm/cluster.pb.h"

namespace efedllm {

inline constexpr size_t kMaxLinkTargets = 64;  // of one message

struct LinkTarget {
  NodeId node;
  std::string address;  // HOST:PORT; empty: the coordinator, where the worker joined it

  friend bool operator==(const LinkTarget&, const LinkTarget&) = default;
};

struct MeasureLinks {
  std::vector<LinkTarget> targets;  // at most kMaxLinkTargets
};

// The sender's link to another node.
struct LinkReport {
  LinkSpeed link;       // from is not on the wire: it is the sender
  std::string message;  // printable; why the node is not reachable
};

struct Pong {
  uint64_t id = 0;  // the ping's
  absl::Time worker_time;
};

// ToWire: our own values, valid by construction. FromWire: InvalidArgument names the field.
v1::MeasureLinks ToWire(const MeasureLinks& measure);
v1::LinkReport ToWire(const LinkReport& report);
v1::Pong ToWire(const Pong& pong);

absl::StatusOr<MeasureLinks> FromWire(const v1::MeasureLinks& message);
absl::StatusOr<LinkReport> FromWire(const v1::LinkReport& message);
absl::StatusOr<Pong> FromWire(const v1::Pong& message);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_LINK_WIRE_H_
