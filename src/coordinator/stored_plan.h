// The plan that served last, as the state database keeps it over a restart of the coordinator: the
// same workers then get the layers that they hold already.
#ifndef EFEDLLM_COORDINATOR_STORED_PLAN_H_
#define EFEDLLM_COORDINATOR_STORED_PLAN_H_

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/stage_plan.h"
#include "common/ids.h"
#include "store/database.h"

namespace efedllm {

struct StoredPlan {
  Epoch epoch;  // the one that served it; plan.epoch is the same
  StagePlan plan;
  std::vector<NodeId> nodes;  // that the plan was made for: its stages', and standbys
};

// Takes the place of the one before. It lasts when this returns. database: of OpenStateDatabase.
// InvalidArgument: not what LoadPlan would return.
absl::Status SavePlan(Database& database, const StoredPlan& stored);

// nullopt: none was saved, or what stands there can't be a plan (logged). Its chains are then
// contiguous from layer 0 and of equal length, its nodes workers, each in one stage. That it suits
// today's model (layers, memory) is for the caller to check.
absl::StatusOr<std::optional<StoredPlan>> LoadPlan(Database& database);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_STORED_PLAN_H_
