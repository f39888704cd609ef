#include "coordinator/membership.h"

#include <algorithm>
#include <utility>

#include "net/address.h"
#include "net/credentials.h"

namespace efedllm {
namespace {

constexpr absl::Duration kRememberGone = absl::Minutes(10);

constexpr absl::Duration kBrokenLink = absl::Seconds(30);

void Take(const StageReport& report, MemberStage& stage, absl::Time now) {
  if (report.bytes_held != stage.report.bytes_held || report.state != stage.report.state) {
    stage.progress = now;
  }
  stage.report = report;
  if (report.state == StageState::kReady) {
    stage.state = MemberState::kReady;
  } else if (report.state == StageState::kFetching && stage.state == MemberState::kAssigned) {
    stage.state = MemberState::kFetching;
  }
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

MemberState Member::state() const {
  if (!attached()) return MemberState::kGone;
  if (is_to_leave()) return MemberState::kDraining;
  return stage() == nullptr ? MemberState::kStandby : stage()->state;
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
  member.failures = old.failures;
  member.left_out_until = old.left_out_until;
  member.last_failure = old.last_failure;
  member.drained = old.drained;
  member.barred = old.barred;
  std::erase_if(broken_links_, [node](const auto& link) {
    return link.first.first == node || link.first.second == node;
  });
  std::shared_ptr<WorkerLink> replaced = std::move(old.link);
  old = std::move(member);
  return replaced;
}

Member* Membership::Find(NodeId node) {
  const auto position = members_.find(node);
  return position == members_.end() ? nullptr : &position->second;
}

const Member* Membership::Find(NodeId node) const {
  const auto position = members_.find(node);
  return position == members_.end() ? nullptr : &position->second;
}

Member* Membership::Find(NodeId node, const WorkerLink* link) {
  Member* member = Find(node);
  return member != nullptr && member->link.get() == link ? member : nullptr;
}

void Membership::Prepare(Member& member, Epoch epoch, LayerRange layers, absl::Time now) {
  member.next = MemberStage();
  member.next->epoch = epoch;
  member.next->layers = layers;
  member.next->progress = now;
}

bool Membership::TakeReport(Member& member, const StageReport& report, absl::Time now) {
  for (std::optional<MemberStage>* stage : {&member.next, &member.present}) {
    if (!stage->has_value() || (*stage)->epoch != report.epoch) continue;
    const uint64_t before = (*stage)->report.bytes_fetched;
    if (report.bytes_fetched > before) member.bytes_fetched += report.bytes_fetched - before;
    Take(report, **stage, now);
    return true;
  }
  return false;
}

std::vector<Member*> Membership::Begin(Epoch epoch) {
  std::vector<Member*> out;
  for (auto& [node, member] : members_) {
    const bool held = member.present.has_value() || member.next.has_value();
    member.present.reset();
    if (member.next && member.next->epoch == epoch) member.present = std::move(member.next);
    member.next.reset();
    if (held && !member.present) out.push_back(&member);
    if (member.present) member.counters = StageCounters();
  }
  return out;
}

void Membership::ForgetNext() {
  for (auto& [node, member] : members_) member.next.reset();
}

void Membership::TakeHeartbeat(Member& member, const StageCounters& counters) {
  // The counters begin anew with each epoch, and come from a peer.
  const StageCounters before =
      counters.epoch == member.counters.epoch ? member.counters : StageCounters();
  if (counters.tokens > before.tokens) {
    const uint64_t tokens = counters.tokens - before.tokens;
    member.tokens += tokens;
    member.work_flop += static_cast<double>(tokens) * static_cast<double>(flops_) *
                        (member.present ? member.present->layers.size() : 0);
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

void Membership::LeaveOut(Member& member, const std::string& why, absl::Time now) {
  const size_t times = std::min(member.failures++, rules_.left_out_for.size() - 1);
  member.left_out_until = now + rules_.left_out_for[times];
  member.last_failure = why;
}

void Membership::MarkUnreachable(NodeId from, NodeId to, absl::Time now) {
  broken_links_[{from, to}] = now + kBrokenLink;
}

void Membership::MarkGone(Member& member) {
  member.link = nullptr;
  member.leaving = false;
  member.present.reset();
  member.next.reset();
}

std::vector<NodeId> Membership::Silent(absl::Duration lease, absl::Time now) const {
  std::vector<NodeId> silent;
  for (const auto& [node, member] : members_) {
    if (!member.attached()) continue;
    const absl::Duration rtt = member.pings.empty() ? absl::ZeroDuration() : member.pings.rtt();
    if (now - member.last_heard > lease + 2 * rtt) silent.push_back(node);
  }
  return silent;
}

void Membership::Excuse(absl::Duration pause) {
  for (auto& [node, member] : members_) member.last_heard += pause;
}

std::vector<NodeId> Membership::Stalled(absl::Time now) const {
  std::vector<NodeId> stalled;
  for (const auto& [node, member] : members_) {
    if (member.attached() && member.next && member.next->state != MemberState::kReady &&
        now - member.next->progress > rules_.stage_progress) {
      stalled.push_back(node);
    }
  }
  return stalled;
}

std::vector<Candidate> Membership::Candidates(absl::Time now) const {
  std::vector<Candidate> candidates;
  for (const auto& [node, member] : members_) {
    if (member.attached() && !member.is_to_leave() && member.left_out_until <= now) {
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

std::vector<LinkSpeed> Membership::PlannerLinks(const std::vector<PlannerNode>& nodes,
                                                absl::Time now) const {
  const auto here = [this](const PlannerNode& node) {
    const auto member = members_.find(node.node);
    return member != members_.end() && IsLoopback(member->second.hello.hop_address);
  };
  const auto first_elsewhere = std::find_if_not(nodes.begin(), nodes.end(), here);
  std::vector<LinkSpeed> links = Links();
  for (const auto& [ends, until] : broken_links_) {
    if (until <= now) continue;
    std::erase_if(links, [ends = ends](const LinkSpeed& link) {
      return link.from == ends.first && link.to == ends.second;
    });
    links.push_back({ends.first, ends.second, absl::ZeroDuration(), 0, /*reachable=*/false});
  }
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
