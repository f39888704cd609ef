// When to plan, and for whom: pure functions of what the coordinator sees.
#ifndef EFEDLLM_COORDINATOR_MEMBERSHIP_RULES_H_
#define EFEDLLM_COORDINATOR_MEMBERSHIP_RULES_H_

#include <cstddef>
#include <optional>
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
  absl::Duration heartbeat = absl::Milliseconds(200);
  // Without an answer for so long a node is gone; for less while a step is overdue.
  absl::Duration lease = absl::Seconds(1);
  absl::Duration overdue_lease = absl::Milliseconds(500);
  // A node by whose fault an epoch ended or a stage did not come up is left out for so long, after
  // the first, second ... time.
  std::vector<absl::Duration> left_out_for = {absl::Seconds(5), absl::Seconds(20),
                                              absl::Minutes(1)};
  absl::Duration stage_progress = absl::Minutes(10);  // fetching without any is a failure
  // After a restart the nodes of the stored plan are waited for.
  absl::Duration restart_patience = absl::Milliseconds(2500);
  // A stage that takes so many times as long as it did is a reason to look for another plan at
  // once, which must promise so much more.
  absl::Duration straggler_interval = absl::Milliseconds(500);
  double straggler_factor = 3;
  double straggler_gain = 1.5;
  absl::Duration max_plan_delay = absl::Seconds(30);  // between plans that fail by themselves
  // What stood against a plan may be none of the nodes: a full disk.
  absl::Duration refused_interval = absl::Seconds(10);
};

enum class PlanState {
  kNone,     // no epoch
  kRefused,  // there is no plan for `considered`, or it can't begin
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
  absl::Time refused_at = absl::InfiniteFuture();  // where plan is kRefused
  absl::Time not_before = absl::InfinitePast();    // see PlanDelay
  bool served_before = false;                      // min_workers were there once
  size_t active_sequences = 0;
  bool must_move = false;  // a node of the plan shall not be in it any more
  // For these candidates there was no plan without it.
  std::optional<std::vector<NodeId>> refused = std::nullopt;
  std::vector<NodeId> expected;  // after a restart: the nodes of the stored plan
  absl::Time expected_until = absl::InfinitePast();
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
