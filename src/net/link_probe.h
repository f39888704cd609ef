// Measures what a link to another node can do, by calls that the node answers at once on the port
// where hops come in.
#ifndef EFEDLLM_NET_LINK_PROBE_H_
#define EFEDLLM_NET_LINK_PROBE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "net/credentials.h"

namespace efedllm {

struct LinkMeasurement {
  absl::Duration rtt;           // the least of several
  double bytes_per_second = 0;  // to the peer: as a connection carries it that is under way
};

// One measurement, over a connection of its own, after the security of the nodes' other calls.
class LinkProbe {
 public:
  // transport is borrowed and outlives this.
  LinkProbe(const Transport& transport, const std::string& address, NodeId peer);
  ~LinkProbe();

  // Once; takes a quarter of a second and a few RTTs, on slow links up to some seconds.
  // Unavailable, DeadlineExceeded: the peer can't be reached, and why; Cancelled; others: the peer
  // refuses.
  absl::StatusOr<LinkMeasurement> Measure();
  // Ends Measure soon. Thread-safe.
  void Cancel();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace efedllm

#endif  // EFEDLLM_NET_LINK_PROBE_H_
