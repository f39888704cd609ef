#include "coordinator/epoch_keeper.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

// A turn that comes so much later than it should: this process did not run.
constexpr absl::Duration kOwnPause = absl::Milliseconds(300);
// By nodes that served for so long, what went wrong before is forgotten.
constexpr absl::Duration kGoodEpoch = absl::Seconds(30);

}  // namespace

EpochKeeper::EpochKeeper(const Clock& clock, EpochBuilder& builder, SwitchingPipeline& pipeline,
                         const EpochKeeperOptions& options)
    : clock_(clock),
      builder_(builder),
      switch_(pipeline),
      options_(options),
      membership_(options.rules, options.layers.empty() ? 0 : options.layers[0].flops_per_token) {
  const absl::StatusOr<std::optional<StoredPlan>> stored = builder_.LoadPlan();
  if (!stored.ok()) spdlog::warn("no stored plan: {}", std::string(stored.status().message()));
  if (!stored.ok() || !stored->has_value()) return;
  const StagePlan& plan = (*stored)->plan;
  if (plan.chains.front().stages.back().layers.last != options_.layers.size()) return;  // outdated
  absl::MutexLock lock(&mu_);
  last_plan_ = plan;
  served_before_ = true;  // with as many workers as min_workers asks for
  for (const Stage& stage : last_plan_.AllStages()) expected_.push_back(stage.node);
  expected_until_ = clock_.Now() + options_.rules.restart_patience;
}

EpochKeeper::~EpochKeeper() { Stop(); }

void EpochKeeper::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void EpochKeeper::Stop() {
  {
    absl::MutexLock lock(&mu_);
    if (std::exchange(stopping_, true)) return;
  }
  if (thread_.joinable()) thread_.join();
  const absl::Status why = absl::UnavailableError("the coordinator stops");
  switch_.Stop(why);
  std::vector<std::shared_ptr<ClusterPipeline>> pipelines;
  std::vector<std::shared_ptr<WorkerLink>> links;
  Epoch epoch;
  {
    absl::MutexLock lock(&mu_);
    epoch = next_ ? next_->plan.epoch : present_.plan.epoch;
    pipelines.push_back(std::move(present_.pipeline));
    if (next_) pipelines.push_back(std::move(next_->pipeline));
    for (const Member* member : membership_.All()) {
      if (member->attached()) links.push_back(member->link);
    }
  }
  for (const auto& pipeline : pipelines) {
    if (pipeline) pipeline->End(why);
  }
  for (const auto& link : links) {
    link->Release(epoch);
    link->Close(why);
  }
}

void EpochKeeper::SetDraining() {
  absl::MutexLock lock(&mu_);
  draining_ = true;
}

void EpochKeeper::SetActiveSequences(size_t count) {
  const size_t before = active_sequences_.exchange(count);
  if (count != 0 || before == 0) return;
  absl::MutexLock lock(&mu_);
  changed_ = true;
}

void EpochKeeper::Loop() {
  absl::Time next = clock_.Now();
  while (true) {
    {
      absl::MutexLock lock(&mu_);
      const absl::Duration wait =
          std::clamp(next - clock_.Now(), absl::ZeroDuration(), options_.rules.heartbeat / 2);
      mu_.AwaitWithTimeout(absl::Condition(this, &EpochKeeper::ShouldWake), wait);
      if (stopping_) return;
    }
    next = Turn();
  }
}

absl::Time EpochKeeper::Turn() {
  const absl::Time now = clock_.Now();
  ExcuseOwnPause(now);
  Sweep(now);
  LookForBetterPlan(now);
  LookForBetterCodecs(now);
  SurveyLinks(now);
  SendPrefetches();
  TellLapses();
  MembershipMove move;
  bool serves = false;
  std::string reason;
  {
    absl::MutexLock lock(&mu_);
    changed_ = false;
    move = NextMove(View(now), options_.rules);
    serves = Serves();
    reason_ = serves ? "" : Reason(move);
    reason = reason_;
  }
  if (!serves) switch_.Stop(absl::UnavailableError(reason));
  ReleaseLeaving();
  if (move.plan) {
    Plan();
    move.look_again = clock_.Now();
  } else {
    AdvanceNext(now);
  }
  last_turn_ = clock_.Now();
  next_turn_ = std::min(move.look_again, last_turn_ + options_.rules.heartbeat / 2);
  return next_turn_;
}

// Who did not run himself can't say that others were silent.
void EpochKeeper::ExcuseOwnPause(absl::Time now) {
  if (last_turn_ == absl::InfinitePast()) return;
  const absl::Duration pause = now - std::max(next_turn_, last_turn_);
  if (pause < kOwnPause) return;
  absl::MutexLock lock(&mu_);
  membership_.Excuse(pause);
}

void EpochKeeper::Sweep(absl::Time now) {
  std::vector<NodeId> silent, stalled;
  Epoch next;
  {
    absl::MutexLock lock(&mu_);
    const bool overdue = Serves() && present_.pipeline && present_.pipeline->Overdue();
    silent = membership_.Silent(overdue ? options_.rules.overdue_lease : options_.rules.lease, now);
    stalled = membership_.Stalled(now);
    if (next_) next = next_->plan.epoch;
    membership_.Forget(now);
    if (Serves() && !present_.alone && now - present_.since > kGoodEpoch) {
      plan_failures_ = 0;
      for (const Stage& stage : present_.plan.AllStages()) {
        Member* member = membership_.Find(stage.node);
        if (member != nullptr) member->failures = 0;
      }
    }
  }
  for (const NodeId node : silent) Lose(node, "does not answer");
  StageReport report;
  report.epoch = next;
  report.state = StageState::kFailed;
  report.message = "no progress with its stage";
  for (const NodeId node : stalled) Fail(node, report);
}

// Who holds nothing that serves or is prepared.
void EpochKeeper::ReleaseLeaving() {
  std::vector<std::shared_ptr<WorkerLink>> released;
  Epoch epoch;
  {
    absl::MutexLock lock(&mu_);
    epoch = present_.plan.epoch;
    for (const Member* known : membership_.All()) {
      Member& member = *membership_.Find(known->node);
      const bool needed = member.stage() != nullptr && (Serves() || next_);
      if (!member.attached() || !member.leaving || member.released || needed) continue;
      member.released = true;
      released.push_back(member.link);
    }
  }
  for (const auto& link : released) link->Release(epoch);
}

// Who waits for something to do has the weights of all stages at hand when it is needed.
void EpochKeeper::SendPrefetches() {
  std::vector<NodeId> idle;
  {
    absl::MutexLock lock(&mu_);
    if (!Serves() || present_.alone || next_) return;
    for (const Member* member : membership_.All()) {
      if (!member->attached() || member->stage() != nullptr || member->leaving) continue;
      if (prefetching_.count(member->node) == 0) idle.push_back(member->node);
    }
  }
  if (idle.empty()) return;
  const absl::StatusOr<Prefetch> prefetch = builder_.AllTensors();
  absl::MutexLock lock(&mu_);
  for (const NodeId node : idle) {
    prefetching_.insert(node);
    const Member* member = membership_.Find(node);
    if (prefetch.ok() && member != nullptr && member->attached()) member->link->Prefetch(*prefetch);
  }
}

bool EpochKeeper::MustMove() const {
  const StagePlan& plan = next_ ? next_->plan : present_.plan;
  if (!next_ && (!Serves() || present_.alone)) return false;
  for (const Stage& stage : plan.AllStages()) {
    const Member* member = membership_.Find(stage.node);
    if (member == nullptr || member->is_to_leave() || member->left_out_until > clock_.Now()) {
      return true;
    }
  }
  return false;
}

MembershipView EpochKeeper::View(absl::Time now) const {
  MembershipView view;
  view.now = now;
  view.candidates = membership_.Candidates(now);
  view.plan = Serves() || !next_ ? present_.state : PlanState::kLoading;
  view.considered = next_ ? next_->considered : present_.considered;
  if (present_.state == PlanState::kBroken) view.broken_since = present_.since;
  if (present_.state == PlanState::kRefused) view.refused_at = present_.since;
  view.not_before = last_failure_ + PlanDelay(plan_failures_, options_.rules);
  view.served_before = served_before_;
  view.active_sequences = active_sequences_.load();
  view.better_since = better_since_;
  view.must_move = MustMove();
  if (Serves()) view.refused = refused_;
  view.expected = expected_;
  view.expected_until = expected_until_;
  return view;
}

std::string EpochKeeper::Name(NodeId node) const {
  for (const Member* member : membership_.All()) {
    if (member->node == node) return absl::StrCat(member->hello.name, " (", NodeName(node), ")");
  }
  return NodeName(node);
}

std::string EpochKeeper::Reason(const MembershipMove& move) const {
  if (!preparing_.empty()) return preparing_;
  if (next_ && next_->phase != Next::Phase::kLoading) {
    return absl::StrCat("epoch ", next_->plan.epoch.v, " begins");
  }
  if (next_) {
    uint64_t held = 0, total = 0;
    for (const Member* member : membership_.All()) {
      if (!member->next) continue;
      held += member->next->report.bytes_held;
      total += member->next->report.bytes_total;
    }
    return absl::StrCat("loading weights: ", total == 0 ? 0 : held * 100 / total, " %");
  }
  std::string reason = "planning";
  if (!move.waiting_for.empty()) reason = move.waiting_for;
  if (present_.state == PlanState::kRefused) reason = present_.refusal;
  for (const Member* member : membership_.All()) {
    if (member->left_out_until > clock_.Now()) {
      absl::StrAppend(&reason, "; ", Name(member->node),
                      " is left out for a while: ", member->last_failure);
    }
  }
  return reason;
}

ClusterStatus EpochKeeper::Status() const {
  absl::MutexLock lock(&mu_);
  ClusterStatus status;
  status.now = clock_.Now();
  status.epoch = Serves() || !next_ ? present_.plan.epoch : next_->plan.epoch;
  status.reason = reason_;
  const bool loading = next_.has_value() || !preparing_.empty();
  status.state = Serves() ? "serving" : loading ? "loading" : "waiting";
  if (draining_) status.state = "draining";
  for (const Member* member : membership_.All()) {
    status.members.push_back(*member);
    // What is being prepared beside what serves is not yet anybody's stage.
    if (Serves()) status.members.back().next.reset();
  }
  status.links = membership_.Links();
  return status;
}

}  // namespace efedllm
