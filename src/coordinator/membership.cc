#include "coordinator/membership.h"

#include <algorithm>
#include <utility>

#include "net/address.h"
#include "net/credentials.h"

namespace efedllm {
namespace {

constexpr absl::Duration kRememberGone = absl::Minutes(10);

bool ComingUp(const Member& member) {
  return member.state == MemberState::kAssigned || member.state == MemberState::kFetching;
}

}  // namespace

absl::string_view MemberStateName(MemberState state) {
  switch (state) {
    case MemberState::kStandby:
      return "standby";
    case MemberState::kAssigned:
      return "assigned";
    case MemberState::kFetching:
      return "fetching";
    case MemberState::kReady:
      return "ready";
    case MemberState::kDraining:
      return "draining";
    case MemberState::kGone:
      return "gone";
  }
  return "unknown";
}

std::shared_ptr<WorkerLink> Membership::Attach(NodeId node, const Hello& hello,
                                               std::shared_ptr<WorkerLink> link, absl::Time now) {
  const auto [position, added] = members_.try_emplace(node);
  Member& old = position->second;
  Member member;
  member.node = node;
  member.hello = hello;
  member.link = std::move(link);
  member.joined = member.last_heard = now;
  // A process that fails and starts again and again is still the same machine.
  member.stage_failures = old.stage_failures;
  member.left_out_until = old.left_out_until;
  member.last_failure = old.last_failure;
  std::shared_ptr<WorkerLink> replaced = std::move(old.link);
  old = std::move(member);
  return replaced;
}

Member* Membership::Find(NodeId node) {
  const auto position = members_.find(node);
  return position == members_.end() ? nullptr : &position->second;
}

Member* Membership::Find(NodeId node, const WorkerLink* link) {
  Member* member = Find(node);
  return member != nullptr && member->link.get() == link ? member : nullptr;
}

void Membership::SetStage(Member& member, LayerRange layers, absl::Time now) {
  member.layers = layers;
  member.report = StageReport();
  member.counters = StageCounters();
  member.progress = now;
  if (member.state != MemberState::kDraining && member.state != MemberState::kGone) {
    member.state = layers.size() == 0 ? MemberState::kStandby : MemberState::kAssigned;
  }
}

bool Membership::TakeReport(Member& member, const StageReport& report, Epoch epoch,
                            absl::Time now) {
  member.last_heard = now;
  if (report.epoch != epoch || member.layers.size() == 0) return false;
  if (member.state == MemberState::kDraining || member.state == MemberState::kGone) return false;
  if (report.bytes_held != member.report.bytes_held || report.state != member.report.state) {
    member.progress = now;
  }
  if (report.bytes_fetched > member.report.bytes_fetched) {
    member.bytes_fetched += report.bytes_fetched - member.report.bytes_fetched;
  }
  member.report = report;
  if (report.state == StageState::kReady) {
    member.state = MemberState::kReady;
  } else if (report.state == StageState::kFetching && member.state == MemberState::kAssigned) {
    member.state = MemberState::kFetching;
  }
  return true;
}

void Membership::TakeHeartbeat(Member& member, const StageCounters& counters, absl::Time now) {
  member.last_heard = now;
  // The counters begin anew with each epoch, and come from a peer.
  const StageCounters before =
      counters.epoch == member.counters.epoch ? member.counters : StageCounters();
  if (counters.tokens > before.tokens) {
    const uint64_t tokens = counters.tokens - before.tokens;
    member.tokens += tokens;
    member.work_flop += static_cast<double>(tokens) * static_cast<double>(flops_) *
                        static_cast<double>(member.layers.size());
  }
  if (counters.steps > before.steps) member.steps += counters.steps - before.steps;
  member.counters = counters;
}

void Membership::TakeLink(const LinkSpeed& link) {
  for (const NodeId end : {link.from, link.to}) {
    if (end != kCoordinatorNode && members_.count(end) == 0) return;
  }
  links_[{link.from, link.to}] = link;
}

std::vector<LinkSpeed> Membership::Links() const {
  std::vector<LinkSpeed> links;
  for (const auto& [ends, link] : links_) links.push_back(link);
  return links;
}

void Membership::CountFailure(Member& member, const std::string& message, absl::Time now) {
  member.last_failure = message;
  if (++member.stage_failures < rules_.max_stage_failures) return;
  member.left_out_until = now + rules_.left_out_for;
  member.stage_failures = 0;
}

void Membership::MarkGone(Member& member) {
  member.link = nullptr;
  member.state = MemberState::kGone;
}

std::vector<NodeId> Membership::Silent(absl::Time now) const {
  std::vector<NodeId> silent;
  for (const auto& [node, member] : members_) {
    if (member.attached() &&
        now - member.last_heard > rules_.heartbeat * (rules_.missed_heartbeats + 1)) {
      silent.push_back(node);
    }
  }
  return silent;
}

std::vector<NodeId> Membership::Stalled(absl::Time now) const {
  std::vector<NodeId> stalled;
  for (const auto& [node, member] : members_) {
    if (member.attached() && ComingUp(member) && now - member.progress > rules_.stage_progress) {
      stalled.push_back(node);
    }
  }
  return stalled;
}

std::vector<Candidate> Membership::Candidates(absl::Time now) const {
  std::vector<Candidate> candidates;
  for (const auto& [node, member] : members_) {
    if (member.attached() && member.state != MemberState::kDraining &&
        member.left_out_until <= now) {
      candidates.push_back({node, member.joined});
    }
  }
  // Workers on the coordinator's own machine that joined over loopback come first: only the
  // coordinator and each other can dial them there, and in this order nobody else has to.
  std::stable_partition(candidates.begin(), candidates.end(), [this](const Candidate& candidate) {
    return IsLoopback(members_.at(candidate.node).hello.hop_address);
  });
  return candidates;
}

std::vector<PlannerNode> Membership::PlannerNodes(const std::vector<Candidate>& candidates) const {
  std::vector<PlannerNode> nodes;
  for (const Candidate& candidate : candidates) {
    const auto member = members_.find(candidate.node);
    if (member == members_.end()) continue;
    nodes.push_back({candidate.node, member->second.hello.name, member->second.hello.profile, {}});
  }
  return nodes;
}

std::vector<LinkSpeed> Membership::PlannerLinks(const std::vector<PlannerNode>& nodes) const {
  const auto here = [this](const PlannerNode& node) {
    const auto member = members_.find(node.node);
    return member != members_.end() && IsLoopback(member->second.hello.hop_address);
  };
  const auto first_elsewhere = std::find_if_not(nodes.begin(), nodes.end(), here);
  std::vector<LinkSpeed> links = Links();
  if (first_elsewhere == nodes.end()) return links;
  for (const PlannerNode& to : nodes) {
    if (!here(to)) continue;
    for (const PlannerNode& from : nodes) {
      if (here(from)) continue;
      links.push_back({from.node, to.node, absl::ZeroDuration(), 0, /*reachable=*/false});
    }
  }
  return links;
}

std::vector<const Member*> Membership::All() const {
  std::vector<const Member*> all;
  for (const auto& [node, member] : members_) all.push_back(&member);
  std::stable_sort(all.begin(), all.end(),
                   [](const Member* a, const Member* b) { return a->joined < b->joined; });
  return all;
}

void Membership::Forget(absl::Time now) {
  for (auto it = members_.begin(); it != members_.end();) {
    const Member& member = it->second;
    const bool forget = !member.attached() && now - member.last_heard > kRememberGone &&
                        member.left_out_until <= now;
    if (forget) {
      std::erase_if(links_, [node = it->first](const auto& link) {
        return link.first.first == node || link.first.second == node;
      });
    }
    it = forget ? members_.erase(it) : std::next(it);
  }
}

}  // namespace efedllm
