// A request's trace in Chrome's format, which https://ui.perfetto.dev and chrome://tracing draw.
#ifndef EFEDLLM_COORDINATOR_CHROME_TRACE_H_
#define EFEDLLM_COORDINATOR_CHROME_TRACE_H_

#include <map>
#include <string>

#include "absl/time/time.h"
#include "common/ids.h"
#include "coordinator/trace_store.h"

namespace efedllm {

struct TracedNode {
  std::string name;             // as its owner called it; printable
  absl::Duration clock_offset;  // its clock minus the coordinator's; zero: not known
};

// A JSON object: "traceEvents" with one track (a process in the format's words) for the
// coordinator, with its scheduler and head, one for each node, and one for the links, with a thread
// for each. Steps that overlap on a track stand in lanes. Per step and hop: wire, decode, queue,
// compute, encode; per step: step (from its submission until it was back), queue (until the head
// took it), head. nodes: those that are not known are called by their number.
std::string ChromeTrace(const RequestTrace& trace, const std::map<NodeId, TracedNode>& nodes);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_CHROME_TRACE_H_
