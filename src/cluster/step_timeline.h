// When a step was where, by the coordinator's clock: from the nodes' own accounts and what is known
// of their clocks.
#ifndef EFEDLLM_CLUSTER_STEP_TIMELINE_H_
#define EFEDLLM_CLUSTER_STEP_TIMELINE_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cluster/stage_timing.h"
#include "common/ids.h"

namespace efedllm {

// One stage, and the hop into it.
struct StagePassage {
  NodeId node;
  absl::Duration wire;  // from the stage before, or the coordinator, to its receipt
  absl::Time received;  // then: decode, queue, compute, encode, one after the other
  absl::Duration decode;
  absl::Duration queue;  // all waiting inside the node, though some of it was before the decoding
  absl::Duration compute;
  absl::Duration encode;
  uint32_t received_codec = 0;  // see StageTiming
  uint32_t received_bytes = 0;

  absl::Time decoded() const { return received + decode; }
  absl::Time begun() const { return decoded() + queue; }
  absl::Time computed() const { return begun() + compute; }
  absl::Time left() const { return computed() + encode; }
};

struct StepTimeline {
  std::vector<StagePassage> stages;
  absl::Duration wire_back;  // from the last stage to the coordinator
};

// submitted, returned: when the coordinator sent the step and had it back. clock_offset: a node's
// clock minus the coordinator's; zero where it is not known. Everything lies within [submitted,
// returned] and no hop takes less than nothing, whatever the clocks say, as long as the stages'
// times fit into it.
StepTimeline PlaceStep(absl::Time submitted, absl::Time returned,
                       absl::Span<const StageTiming> timings,
                       absl::FunctionRef<absl::Duration(NodeId)> clock_offset);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_STEP_TIMELINE_H_
