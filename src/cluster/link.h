// What was measured of the network between two nodes.
#ifndef EFEDLLM_CLUSTER_LINK_H_
#define EFEDLLM_CLUSTER_LINK_H_

#include "absl/time/time.h"
#include "common/ids.h"

namespace efedllm {

// One direction, as `from` measured it. Node 0 is the coordinator.
struct LinkSpeed {
  NodeId from;
  NodeId to;
  absl::Duration rtt;           // the least of several; meaningless where not reachable
  double bytes_per_second = 0;  // from -> to; 0: not measured
  bool reachable = true;        // `from` could open a connection to `to` and was answered

  friend bool operator==(const LinkSpeed&, const LinkSpeed&) = default;
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_LINK_H_
