// Which nodes the operator took out of service. It lasts: over restarts of the node and of the
// coordinator, until he puts them back.
#ifndef EFEDLLM_COORDINATOR_NODE_DRAINS_H_
#define EFEDLLM_COORDINATOR_NODE_DRAINS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/ids.h"
#include "coordinator/epoch_keeper.h"
#include "store/database.h"

namespace efedllm {

struct KnownNode {
  NodeId node;
  std::string name;
  bool attached = false;
};

// The node that a person means: by its id, its name, or the beginning of one of them, in this
// order; where several fit, the one that is attached. NotFound: none; InvalidArgument: still
// several, and which.
absl::StatusOr<KnownNode> FindNode(absl::string_view wanted, const std::vector<KnownNode>& nodes);

// Thread-safe.
class NodeDrains {
 public:
  // All borrowed.
  NodeDrains(Database& database, const Clock& clock, EpochKeeper& keeper)
      : database_(database), clock_(clock), keeper_(keeper) {}

  // Drains those that were drained before the restart. Before the keeper starts.
  absl::Status Restore() ABSL_LOCKS_EXCLUDED(mu_);

  struct Change {
    KnownNode node;
    bool changed = false;  // false: it was so already
  };
  // wanted: as for FindNode, among all that are attached or have ever enrolled. Written down when
  // this returns; that the node holds nothing is another matter.
  absl::StatusOr<Change> Drain(absl::string_view wanted) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Change> Undrain(absl::string_view wanted) ABSL_LOCKS_EXCLUDED(mu_);

  // Among all that are attached, have ever enrolled or are drained.
  absl::StatusOr<KnownNode> Find(absl::string_view wanted) const ABSL_LOCKS_EXCLUDED(mu_);

  // Who is drained, and since when (wall clock).
  std::map<NodeId, absl::Time> List() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  Database& database_;
  const Clock& clock_;
  EpochKeeper& keeper_;

  mutable absl::Mutex mu_;
  std::map<NodeId, absl::Time> drained_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_NODE_DRAINS_H_
