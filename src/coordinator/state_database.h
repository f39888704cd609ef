// The coordinator's database in its state dir: join tokens, enrolled and drained nodes, the last
// epoch. The plan that served last stands in it too: coordinator/stored_plan.h.
#ifndef EFEDLLM_COORDINATOR_STATE_DATABASE_H_
#define EFEDLLM_COORDINATOR_STATE_DATABASE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "store/database.h"

namespace efedllm {

// <state_dir>/coordinator.db. The folder exists. DataLoss: damaged; says what to do.
absl::StatusOr<std::unique_ptr<Database>> OpenStateDatabase(const std::string& state_dir);

// A number that no plan had before, not even before a restart: a frame that outlived its epoch must
// not be taken for one of another.
absl::StatusOr<Epoch> NextEpoch(Database& database);

struct EnrolledNode {
  NodeId node;
  std::string name;  // as the worker last called itself, printable
  absl::Time first_seen;
  absl::Time certificate_expires;
  std::string owner = "";  // whom it works for
};
inline constexpr char kNoOwner[] = "unowned";

// Adds the node, or updates its name, certificate and owner. name, owner empty: keeps the one that
// is there; a new node without an owner gets kNoOwner.
absl::Status RecordEnrolment(Database& database, const EnrolledNode& node);
absl::StatusOr<std::vector<EnrolledNode>> ListEnrolledNodes(Database& database);

// Nodes that the operator took out of service, until he puts them back.
struct DrainedNode {
  NodeId node;
  absl::Time since;
};

// Fine if it is there already, with its first time. It lasts when this returns.
absl::Status MarkDrained(Database& database, NodeId node, absl::Time since);
// Fine if it is not there.
absl::Status UnmarkDrained(Database& database, NodeId node);
absl::StatusOr<std::vector<DrainedNode>> ListDrainedNodes(Database& database);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_STATE_DATABASE_H_
