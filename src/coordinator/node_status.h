// A worker as `efedllm-ctl status` shows it.
#ifndef EFEDLLM_COORDINATOR_NODE_STATUS_H_
#define EFEDLLM_COORDINATOR_NODE_STATUS_H_

#include <optional>

#include "absl/time/time.h"
#include "coordinator/membership.h"
#include "wire/admin_service.h"

namespace efedllm {

// drained: since when the operator has it out of service (wall clock); nullopt: he has not.
// now: as of the member's times. `busy` is for who measured it.
void FillNodeStatus(const Member& member, std::optional<absl::Time> drained, absl::Time now,
                    v1::NodeStatus& node);

// One that is drained and away.
void FillAbsentNode(NodeId id, absl::Time drained, v1::NodeStatus& node);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_NODE_STATUS_H_
