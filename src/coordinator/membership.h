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
#include "wire/handover_wire.h"
#include "wire/link_wire.h"

namespace efedllm {

// How the coordinator talks to one attached worker. Thread-safe; never blocks.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  virtual void Assign(const Assignment& assignment) = 0;
  virtual void Release(Epoch epoch) = 0;
  virtual void Measure(const MeasureLinks& links) = 0;
  virtual void HandOver(const efedllm::HandOver& hand_over) = 0;
  virtual void Prefetch(const efedllm::Prefetch& prefetch) = 0;
  // Ends the stream after what was sent before.
  virtual void Close(const absl::Status& why) = 0;
};

// Of a stage: only grows while its epoch lasts.
enum class MemberState { kStandby, kAssigned, kFetching, kReady, kDraining, kGone };
absl::string_view MemberStateName(MemberState state);

struct MemberStage {
  Epoch epoch;
  LayerRange layers;
  MemberState state = MemberState::kAssigned;  // until kReady
  StageReport report;
  absl::Time progress;  // when report last changed
};

struct Member {
  NodeId node;
  Hello hello;                       // hop_address completed
  std::shared_ptr<WorkerLink> link;  // null: gone
  absl::Time joined;
  absl::Time last_heard;  // an answer, which proves the link in both directions

  bool leaving = false;                // it was told to stop, and waits until it is released
  bool released = false;               // it was told so
  bool drained = false;                // the operator took it out
  std::string barred;                  // why it is not trusted with layers; empty: it is
  std::optional<MemberStage> present;  // of the epoch that serves, or served last
  std::optional<MemberStage> next;     // of the one that is prepared
  StageCounters counters;
  PingFilter pings;  // its clock, and its RTT from the coordinator

  // Since it joined, over all epochs.
  uint64_t steps = 0;
  uint64_t tokens = 0;
  double work_flop = 0;
  uint64_t bytes_fetched = 0;

  size_t failures = 0;  // one after the other
  absl::Time left_out_until = absl::InfinitePast();
  std::string last_failure;

  bool attached() const { return link != nullptr; }
  bool is_to_leave() const { return leaving || drained || !barred.empty(); }
  // What it holds, or will hold if that is nothing.
  const MemberStage* stage() const { return present ? &*present : next ? &*next : nullptr; }
  MemberState state() const;
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
  const Member* Find(NodeId node) const;

  // The stage that the member was told to prepare.
  void Prepare(Member& member, Epoch epoch, LayerRange layers, absl::Time now);
  // False: it is neither of its present nor of its next stage, or nothing new.
  bool TakeReport(Member& member, const StageReport& report, absl::Time now);
  // The stages of this epoch are the present ones from now on; those of others are gone. Returns
  // the members that hold nothing any more.
  std::vector<Member*> Begin(Epoch epoch);
  // The epoch that was prepared is given up.
  void ForgetNext();
  void TakeHeartbeat(Member& member, const StageCounters& counters);
  // Kept while both ends are known.
  void TakeLink(const LinkSpeed& link);
  // An answer to a ping came in.
  void TakeAnswer(Member& member, absl::Time now) { member.last_heard = now; }
  // Something went wrong by its fault: it is left out for a while, each time in a row for longer.
  void LeaveOut(Member& member, const std::string& why, absl::Time now);
  // This link does not work, for now.
  void MarkUnreachable(NodeId from, NodeId to, absl::Time now);
  void MarkGone(Member& member);

  // Attached members that have not answered for `lease`, and twice their RTT.
  std::vector<NodeId> Silent(absl::Duration lease, absl::Time now) const;
  // The coordinator itself did nothing for so long, and can't say that others were silent.
  void Excuse(absl::Duration pause);
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
  std::vector<LinkSpeed> PlannerLinks(const std::vector<PlannerNode>& nodes, absl::Time now) const;

  // By order of joining; those that are gone are forgotten after a while.
  std::vector<const Member*> All() const;
  void Forget(absl::Time now);

 private:
  const MembershipRules rules_;
  const uint64_t flops_;
  std::map<NodeId, Member> members_;
  std::map<std::pair<NodeId, NodeId>, LinkSpeed> links_;
  std::map<std::pair<NodeId, NodeId>, absl::Time> broken_links_;  // until when
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_MEMBERSHIP_H_
