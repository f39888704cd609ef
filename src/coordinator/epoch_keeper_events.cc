// What the workers say, as the EpochKeeper takes it.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/epoch_keeper.h"

namespace efedllm {
namespace {

// Known workers, attached or lately gone; far beyond what one coordinator is for.
constexpr size_t kMaxMembers = 4096;

}  // namespace

absl::Status EpochKeeper::Attach(NodeId node, const Hello& hello,
                                 std::shared_ptr<WorkerLink> link) {
  std::shared_ptr<WorkerLink> replaced;
  bool in_plan = false;
  Epoch epoch;
  {
    absl::MutexLock lock(&mu_);
    if (stopping_ || draining_) return absl::UnavailableError("the coordinator stops");
    const Member* before = membership_.Find(node);
    if (before == nullptr && membership_.All().size() >= kMaxMembers) {
      return absl::ResourceExhaustedError("the coordinator has too many workers");
    }
    in_plan = before != nullptr && before->attached() && InPlan(*before);
    epoch = present_.plan.epoch;
    replaced = membership_.Attach(node, hello, std::move(link), clock_.Now());
    // It may have come back with more memory: the planner is to look at it again.
    std::erase(present_.considered, node);
    measured_.erase(node);
    spdlog::info("{} joined from {}", Name(node), hello.hop_address);
    changed_ = true;
  }
  if (replaced) replaced->Close(absl::AbortedError("the node attached again"));
  if (in_plan) Break(epoch, absl::StrCat(NodeName(node), " attached again"), true);
  return absl::OkStatus();
}

void EpochKeeper::OnReport(NodeId node, const WorkerLink* link, const StageReport& report) {
  bool failed = false;
  {
    absl::MutexLock lock(&mu_);
    Member* member = membership_.Find(node, link);
    if (member == nullptr) return;
    const bool taken = membership_.TakeReport(*member, report, present_.plan.epoch, clock_.Now());
    failed = taken && report.state == StageState::kFailed;
    changed_ |= taken && report.state == StageState::kReady;
  }
  if (failed) Fail(node, report.epoch, report.message);
}

void EpochKeeper::OnHeartbeat(NodeId node, const WorkerLink* link, const StageCounters& counters) {
  absl::MutexLock lock(&mu_);
  Member* member = membership_.Find(node, link);
  if (member != nullptr) membership_.TakeHeartbeat(*member, counters, clock_.Now());
}

void EpochKeeper::OnPong(NodeId node, const WorkerLink* link, absl::Time sent, absl::Time received,
                         absl::Time worker_time) {
  absl::MutexLock lock(&mu_);
  Member* member = membership_.Find(node, link);
  if (member != nullptr) member->pings.Add(sent, received, worker_time);
}

void EpochKeeper::OnLink(NodeId from, const WorkerLink* link, const LinkSpeed& speed) {
  absl::MutexLock lock(&mu_);
  if (from != kCoordinatorNode && membership_.Find(from, link) == nullptr) return;
  if (!survey_.Answered(from, speed.to)) return;
  LinkSpeed taken = speed;
  taken.from = from;
  membership_.TakeLink(taken);
  changed_ = true;
}

void EpochKeeper::SurveyLinks(absl::Time now) {
  std::optional<LinkSurvey::Ask> ask;
  std::shared_ptr<WorkerLink> link;
  {
    absl::MutexLock lock(&mu_);
    std::vector<LinkSurvey::Node> nodes;
    for (const Member* member : membership_.All()) {
      if (!member->attached()) continue;
      nodes.push_back({member->node, member->hello.hop_address, member->joined});
    }
    std::sort(nodes.begin(), nodes.end(),
              [](const auto& a, const auto& b) { return a.node < b.node; });
    ask = survey_.Next(nodes, active_sequences_.load() == 0, now);
    if (!ask) return;
    if (ask->from != kCoordinatorNode) link = membership_.Find(ask->from)->link;
  }
  if (link != nullptr) return link->Measure(ask->measure);
  if (options_.measure_links) options_.measure_links(ask->measure);
}

void EpochKeeper::OnLeaving(NodeId node, const WorkerLink* link) {
  std::shared_ptr<WorkerLink> held;
  bool in_plan = false;
  Epoch epoch;
  {
    absl::MutexLock lock(&mu_);
    Member* member = membership_.Find(node, link);
    if (member == nullptr || member->state == MemberState::kDraining) return;
    in_plan = InPlan(*member);
    epoch = present_.plan.epoch;
    held = member->link;
    member->state = MemberState::kDraining;
    spdlog::info("{} is leaving", Name(node));
  }
  // Its sequences are computed anew on the others.
  if (in_plan) Break(epoch, absl::StrCat(NodeName(node), " is leaving"), true);
  held->Release(epoch);
}

void EpochKeeper::OnDetached(NodeId node, const WorkerLink* link) {
  {
    absl::MutexLock lock(&mu_);
    if (membership_.Find(node, link) == nullptr) return;
  }
  Lose(node, "disconnected");
}

void EpochKeeper::Lose(NodeId node, const std::string& why) {
  std::shared_ptr<WorkerLink> link;
  bool in_plan = false;
  Epoch epoch;
  std::string name;
  {
    absl::MutexLock lock(&mu_);
    Member* member = membership_.Find(node);
    if (member == nullptr || !member->attached()) return;
    in_plan = InPlan(*member);
    epoch = present_.plan.epoch;
    link = member->link;
    name = Name(node);
    membership_.MarkGone(*member);
    changed_ = true;
  }
  spdlog::warn("{} {}", name, why);
  if (in_plan) Break(epoch, absl::StrCat(name, " ", why), true);
  link->Close(absl::DeadlineExceededError(absl::StrCat("the node ", why)));
}

void EpochKeeper::Fail(NodeId node, Epoch epoch, const std::string& why) {
  std::string name;
  {
    absl::MutexLock lock(&mu_);
    Member* member = membership_.Find(node);
    if (member == nullptr) return;
    name = Name(node);
    // A stage that served fails with its neighbours; one that does not come up fails by itself.
    if (present_.state == PlanState::kLoading) {
      membership_.CountFailure(*member, why, clock_.Now());
    }
  }
  Break(epoch, absl::StrCat("the stage of ", name, " failed: ", why), false);
}

ClusterStatus EpochKeeper::Status() const {
  absl::MutexLock lock(&mu_);
  ClusterStatus status;
  status.now = clock_.Now();
  status.epoch = present_.plan.epoch;
  status.reason = reason_;
  const bool loading = present_.state == PlanState::kLoading || !preparing_.empty();
  status.state = present_.state == PlanState::kServing ? "serving"
                 : loading                             ? "loading"
                                                       : "waiting";
  if (draining_) status.state = "draining";
  for (const Member* member : membership_.All()) {
    status.members.push_back(*member);
    status.members.back().link = nullptr;
  }
  status.links = membership_.Links();
  return status;
}

}  // namespace efedllm
