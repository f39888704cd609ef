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
  {
    absl::MutexLock lock(&mu_);
    if (stopping_ || draining_) return absl::UnavailableError("the coordinator stops");
    const Member* before = membership_.Find(node);
    if (before == nullptr && membership_.All().size() >= kMaxMembers) {
      return absl::ResourceExhaustedError("the coordinator has too many workers");
    }
    in_plan = before != nullptr && before->attached() && before->stage() != nullptr;
  }
  // A node is its key: who comes again has lost what he held.
  if (in_plan) Lose(node, "attached again");
  {
    absl::MutexLock lock(&mu_);
    replaced = membership_.Attach(node, hello, std::move(link), clock_.Now());
    membership_.Find(node)->drained = drained_.count(node) > 0;
    const auto barred = barred_.find(node);
    if (barred != barred_.end()) membership_.Find(node)->barred = barred->second;
    prefetching_.erase(node);
    refused_.reset();
    // It may have come back with more memory: the planner is to look at it again.
    std::erase(present_.considered, node);
    measured_.erase(node);
    spdlog::info("{} joined from {}", Name(node), hello.hop_address);
    changed_ = true;
  }
  if (replaced) replaced->Close(absl::AbortedError("the node attached again"));
  return absl::OkStatus();
}

void EpochKeeper::OnReport(NodeId node, const WorkerLink* link, const StageReport& report) {
  bool failed = false;
  {
    absl::MutexLock lock(&mu_);
    Member* member = membership_.Find(node, link);
    if (member == nullptr) return;
    const bool taken = membership_.TakeReport(*member, report, clock_.Now());
    failed = taken && report.state == StageState::kFailed;
    changed_ |= taken && report.state == StageState::kReady;
  }
  if (failed) Fail(node, report);
}

void EpochKeeper::OnHandedOver(NodeId node, const WorkerLink* link, const HandedOver& handed_over) {
  absl::MutexLock lock(&mu_);
  if (membership_.Find(node, link) == nullptr || !next_) return;
  if (handed_over.epoch != present_.plan.epoch) return;
  if (handed_over.message.empty()) return;  // the receiver says when it has it
  spdlog::warn("{} did not hand over its KV: {}", Name(node), handed_over.message);
  if (next_->handing_over > 0) --next_->handing_over;
  changed_ = true;
}

void EpochKeeper::OnHeartbeat(NodeId node, const WorkerLink* link, const StageCounters& counters) {
  absl::MutexLock lock(&mu_);
  Member* member = membership_.Find(node, link);
  if (member != nullptr) membership_.TakeHeartbeat(*member, counters);
}

void EpochKeeper::OnPong(NodeId node, const WorkerLink* link, absl::Time sent, absl::Time received,
                         absl::Time worker_time) {
  absl::MutexLock lock(&mu_);
  Member* member = membership_.Find(node, link);
  if (member == nullptr) return;
  member->pings.Add(sent, received, worker_time);
  membership_.TakeAnswer(*member, clock_.Now());
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

void EpochKeeper::TellLapses() {
  std::vector<std::pair<NodeId, TrustEventKind>> lapses;
  {
    absl::MutexLock lock(&mu_);
    lapses.swap(lapses_);
  }
  if (!options_.on_lapse) return;
  for (const auto& [node, kind] : lapses) options_.on_lapse(node, kind);
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
  absl::MutexLock lock(&mu_);
  Member* member = membership_.Find(node, link);
  if (member == nullptr || std::exchange(member->leaving, true)) return;
  spdlog::info("{} is leaving", Name(node));
  changed_ = true;
}

void EpochKeeper::Drain(NodeId node) {
  absl::MutexLock lock(&mu_);
  drained_.insert(node);
  Member* member = membership_.Find(node);
  if (member != nullptr) member->drained = true;
  changed_ = true;
}

void EpochKeeper::Undrain(NodeId node) {
  absl::MutexLock lock(&mu_);
  drained_.erase(node);
  Member* member = membership_.Find(node);
  if (member != nullptr) member->drained = false;
  std::erase(present_.considered, node);
  changed_ = true;
}

void EpochKeeper::Bar(NodeId node, const std::string& why) {
  std::vector<Epoch> epochs;
  std::string name;
  {
    absl::MutexLock lock(&mu_);
    const bool anew = barred_.insert_or_assign(node, why).second;
    name = Name(node);
    Member* member = membership_.Find(node);
    if (member != nullptr) member->barred = why;
    if (!anew) return;
    // What it computed may be in the KV of every stage behind it, and of epochs that went on.
    served_ = StagePlan();
    if (next_) epochs.push_back(next_->plan.epoch);
    if (Serves()) epochs.push_back(present_.plan.epoch);
    changed_ = true;
  }
  for (const Epoch epoch : epochs) {
    Break(epoch, absl::StrCat(name, " is not trusted any more: ", why), true);
  }
}

void EpochKeeper::Readmit(NodeId node) {
  absl::MutexLock lock(&mu_);
  barred_.erase(node);
  Member* member = membership_.Find(node);
  if (member != nullptr) member->barred.clear();
  std::erase(present_.considered, node);
  changed_ = true;
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
  std::optional<Epoch> present, next;
  std::string name;
  {
    absl::MutexLock lock(&mu_);
    Member* member = membership_.Find(node);
    if (member == nullptr || !member->attached()) return;
    if (member->present) present = member->present->epoch;
    if (member->next) next = member->next->epoch;
    link = member->link;
    if (present && Serves() && !member->leaving) {
      lapses_.emplace_back(node, TrustEventKind::kFailed);
    }
    name = Name(node);
    membership_.MarkGone(*member);
    changed_ = true;
  }
  spdlog::warn("{} {}", name, why);
  for (const std::optional<Epoch>& epoch : {present, next}) {
    if (epoch) Break(*epoch, absl::StrCat(name, " ", why), true);
  }
  link->Close(absl::DeadlineExceededError(absl::StrCat("the node ", why)));
}

void EpochKeeper::Break(Epoch epoch, const std::string& why, bool lost_node) {
  std::shared_ptr<ClusterPipeline> pipeline;
  bool next = false;
  {
    absl::MutexLock lock(&mu_);
    changed_ = true;
    next = next_ && next_->plan.epoch == epoch;
    if (!next) {
      if (present_.plan.epoch != epoch || present_.alone) return;
      if (present_.state == PlanState::kBroken) present_.lost_node |= lost_node;
      if (!Serves()) return;
      spdlog::warn("epoch {} is over: {}", epoch.v, why);
      Learn();
      present_.state = PlanState::kBroken;
      present_.since = last_failure_ = clock_.Now();
      present_.lost_node = lost_node;
      plan_failures_ = lost_node ? 0 : plan_failures_ + 1;
      pipeline = present_.pipeline;
    }
  }
  if (next) return GiveUpNext(why, lost_node);
  if (pipeline) pipeline->End(absl::UnavailableError(why));
}

// A step that is lost was held up by somebody.
void EpochKeeper::OnPipelineEnd(Epoch epoch, const absl::Status& why) {
  if (absl::IsDeadlineExceeded(why)) {
    absl::MutexLock lock(&mu_);
    Member* laggard = Laggard();
    if (laggard != nullptr) {
      membership_.LeaveOut(*laggard, "a step was stuck at its stage", clock_.Now());
      lapses_.emplace_back(laggard->node, TrustEventKind::kFailed);
    }
  }
  Break(epoch, std::string(why.message()), false);
}

Member* EpochKeeper::Laggard() {
  Member* laggard = nullptr;
  uint64_t least = UINT64_MAX;
  for (const Stage& stage : present_.plan.AllStages()) {
    Member* member = membership_.Find(stage.node);
    if (member == nullptr || !member->present) continue;
    const uint64_t steps =
        member->counters.epoch == present_.plan.epoch ? member->counters.steps : 0;
    if (steps >= least) continue;
    least = steps;
    laggard = member;
  }
  return laggard;
}

void EpochKeeper::Fail(NodeId node, const StageReport& report) {
  std::string name;
  {
    absl::MutexLock lock(&mu_);
    Member* member = membership_.Find(node);
    if (member == nullptr) return;
    name = Name(node);
    Blame(*member, report);
  }
  Break(report.epoch, absl::StrCat("the stage of ", name, " failed: ", report.message), false);
}

void EpochKeeper::Blame(Member& member, const StageReport& report) {
  const bool next = next_ && next_->plan.epoch == report.epoch;
  const absl::Time now = clock_.Now();
  const std::vector<Chain>& chains = next ? next_->plan.chains : present_.plan.chains;
  for (const Chain& chain : chains) {
    for (size_t i = 0; i < chain.stages.size(); ++i) {
      if (chain.stages[i].node != member.node) continue;
      const bool relayed = chain.stages[i].relayed || i + 1 == chain.stages.size();
      if (report.fault == StageFault::kUpstream && i > 0) {
        Member* upstream = membership_.Find(chain.stages[i - 1].node);
        if (upstream == nullptr) return;
        lapses_.emplace_back(upstream->node, TrustEventKind::kFailed);
        return membership_.LeaveOut(
            *upstream, absl::StrCat("it sent ", Name(member.node), " what is no step"), now);
      }
      if (report.fault == StageFault::kDownstream && !relayed) {
        return membership_.MarkUnreachable(member.node, chain.stages[i + 1].node, now);
      }
      if (report.fault != StageFault::kSelf) return;
      lapses_.emplace_back(member.node, TrustEventKind::kFailed);
      return membership_.LeaveOut(member, report.message, now);
    }
  }
}

}  // namespace efedllm
