// The workers that are, or lately were, attached to the coordinator, and what each said last.
#ifndef EFEDLLM_COORDINATOR_MEMBERSHIP_H_
#define EFEDLLM_COORDINATOR_MEMBERSHIP_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cluster/link.h"
#include "cluster/node_profile.h"
#include "cluster/ping_filter.h"
#include "cluster/planner.h"
#include "cluster/stage_plan.h"
#include "common/ids.h"
#include "coordinator/membership_rules.h"
#include "wire/cluster_wire.h"
#include "wire/link_wire.h"

namespace efedllm {

// How the coordinator talks to one attached worker. Thread-safe; never blocks.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  virtual void Assign(const Assignment& assignment) = 0;
  virtual void Release(Epoch epoch) = 0;
  virtual void Measure(const MeasureLinks& links) = 0;
  // Ends the stream after what was sent before.
  virtual void Close(const absl::Status& why) = 0;
};

// Only grows while a worker is attached and a plan lasts; a new plan begins at kAssigned again.
enum class MemberState { kStandby, kAssigned, kFetching, kReady, kDraining, kGone };
absl::string_view MemberStateName(MemberState state);

struct Member {
  NodeId node;
  Hello hello;                       // hop_address completed
  std::shared_ptr<WorkerLink> link;  // null: gone
  absl::Time joined;
  absl::Time last_heard;

  MemberState state = MemberState::kStandby;
  LayerRange layers;  // of the present plan; empty: none
  StageReport report;
  absl::Time progress;  // when report last changed
  StageCounters counters;
  PingFilter pings;  // its clock, and its RTT from the coordinator

  // Since it joined, over all epochs.
  uint64_t steps = 0;
  uint64_t tokens = 0;
  double work_flop = 0;
  uint64_t bytes_fetched = 0;

  int stage_failures = 0;  // one after the other
  absl::Time left_out_until = absl::InfinitePast();
  std::string last_failure;

  bool attached() const { return link != nullptr; }
};

// Not thread-safe. Time comes as an argument.
class Membership {
 public:
  // flops: of one token through one layer.
  Membership(const MembershipRules& rules, uint64_t flops) : rules_(rules), flops_(flops) {}

  // A node is its key: a second attach takes the place of the first, whose link is returned.
  std::shared_ptr<WorkerLink> Attach(NodeId node, const Hello& hello,
                                     std::shared_ptr<WorkerLink> link, absl::Time now);
  // The member that speaks through this link; nullptr: it was replaced or is gone.
  Member* Find(NodeId node, const WorkerLink* link);
  Member* Find(NodeId node);

  void SetStage(Member& member, LayerRange layers, absl::Time now);
  // False: of another epoch, or nothing new.
  bool TakeReport(Member& member, const StageReport& report, Epoch epoch, absl::Time now);
  void TakeHeartbeat(Member& member, const StageCounters& counters, absl::Time now);
  // Kept while both ends are known.
  void TakeLink(const LinkSpeed& link);
  // The stage did not come up; after a few times in a row the node is left out for a while.
  void CountFailure(Member& member, const std::string& message, absl::Time now);
  void MarkGone(Member& member);

  // Attached members that were not heard of for too long.
  std::vector<NodeId> Silent(absl::Time now) const;
  // Members whose stage comes up without any progress for too long.
  std::vector<NodeId> Stalled(absl::Time now) const;
  // Those that may be planned for: in an order in which each can reach the next, and which depends
  // on nothing but who they are. So after a restart the same workers get the same layers, which
  // they have, however they come back.
  std::vector<Candidate> Candidates(absl::Time now) const;
  std::vector<PlannerNode> PlannerNodes(const std::vector<Candidate>& candidates) const;

  // What was measured last, by (from, to).
  std::vector<LinkSpeed> Links() const;
  // What the planner is to know: those, and that a worker that joined over loopback can be dialled
  // from its own machine alone.
  std::vector<LinkSpeed> PlannerLinks(const std::vector<PlannerNode>& nodes) const;

  // By order of joining; those that are gone are forgotten after a while.
  std::vector<const Member*> All() const;
  void Forget(absl::Time now);

 private:
  const MembershipRules rules_;
  const uint64_t flops_;
  std::map<NodeId, Member> members_;
  std::map<std::pair<NodeId, NodeId>, LinkSpeed> links_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_MEMBERSHIP_H_
