// When to plan, and for whom: pure functions of what the coordinator sees.
#ifndef EFEDLLM_COORDINATOR_MEMBERSHIP_RULES_H_
#define EFEDLLM_COORDINATOR_MEMBERSHIP_RULES_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cluster/planner.h"
#include "cluster/stage_plan.h"
#include "common/ids.h"

namespace efedllm {

struct MembershipRules {
  size_t min_workers = 0;  // before the first plan; 0: the coordinator may compute alone
  // Workers that start together shall make one plan.
  absl::Duration join_settle = absl::Milliseconds(300);
  // A vanished worker is often first noticed by its neighbours; its own connection follows.
  absl::Duration break_settle = absl::Milliseconds(150);
  // A worker that joins while requests run waits for a pause, but not longer than this.
  absl::Duration join_patience = absl::Seconds(30);
  // Measured stage times are looked at so often, and must promise so much more for a new plan;
  // which then waits for a pause as for a worker that joined.
  absl::Duration replan_interval = absl::Minutes(1);
  double replan_gain = 1.15;
  absl::Duration heartbeat = absl::Seconds(1);
  int missed_heartbeats = 3;                          // more: the worker is gone
  int max_stage_failures = 3;                         // then the worker is left out ...
  absl::Duration left_out_for = absl::Minutes(10);    // ... for so long
  absl::Duration stage_progress = absl::Minutes(10);  // fetching without any is a failure
  absl::Duration max_plan_delay = absl::Seconds(30);  // between plans that fail by themselves
};

enum class PlanState {
  kNone,     // no epoch
  kRefused,  // the planner found no plan for `considered`
  kLoading,  // assigned, not all stages ready
  kServing,
  kBroken,  // a stage's node is lost, leaving or failed, or a hop broke
};

// A worker that may be planned for: attached, not leaving, not left out.
struct Candidate {
  NodeId node;
  absl::Time joined;
};

struct MembershipView {
  absl::Time now;
  std::vector<Candidate> candidates;  // in the order of the chain
  PlanState plan = PlanState::kNone;
  std::vector<NodeId> considered;  // candidates of the last plan
  absl::Time broken_since = absl::InfinitePast();
  absl::Time not_before = absl::InfinitePast();  // see PlanDelay
  bool served_before = false;                    // min_workers were there once
  size_t active_sequences = 0;
  absl::Time better_since = absl::InfiniteFuture();  // a much better plan is known
};

struct MembershipMove {
  bool plan = false;                               // now
  absl::Time look_again = absl::InfiniteFuture();  // if nothing else happens before
  std::string waiting_for;  // not empty: no plan is possible; in words for a client
};

MembershipMove NextMove(const MembershipView& view, const MembershipRules& rules);

// How long to wait before the next plan after `failures` plans in a row failed without a node being
// lost.
absl::Duration PlanDelay(int failures, const MembershipRules& rules);

// Of one step of so many tokens through all stages, from what the nodes measured of themselves.
// nodes: those of the chain, at least.
absl::Duration EstimateStep(const Chain& chain, const std::vector<LayerCost>& layers,
                            const std::vector<PlannerNode>& nodes, size_t tokens);

// Where a worker serves hops. hop_address: HOST:PORT, or :PORT for the host that the coordinator
// sees. peer: grpc::ServerContextBase::peer().
absl::StatusOr<std::string> CompleteHopAddress(absl::string_view hop_address,
                                               absl::string_view peer);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_MEMBERSHIP_RULES_H_
