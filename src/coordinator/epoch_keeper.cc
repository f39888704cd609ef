#include "coordinator/epoch_keeper.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr absl::Duration kProbeTimeout = absl::Seconds(20);
// An epoch that served for so long was a good plan, however it ended.
constexpr absl::Duration kGoodEpoch = absl::Seconds(30);

absl::Status Unavailable(const std::string& why) { return absl::UnavailableError(why); }

}  // namespace

EpochKeeper::EpochKeeper(const Clock& clock, EpochBuilder& builder, SwitchingPipeline& pipeline,
                         const EpochKeeperOptions& options)
    : clock_(clock),
      builder_(builder),
      switch_(pipeline),
      options_(options),
      membership_(options.rules, options.layers.empty() ? 0 : options.layers[0].flops_per_token) {}

EpochKeeper::~EpochKeeper() { Stop(); }

void EpochKeeper::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void EpochKeeper::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (!thread_.joinable()) return;
  thread_.join();
  EndEpoch("the coordinator stops");
  std::vector<std::shared_ptr<WorkerLink>> links;
  Epoch epoch;
  {
    absl::MutexLock lock(&mu_);
    epoch = present_.plan.epoch;
    for (const Member* member : membership_.All()) {
      if (member->attached()) links.push_back(member->link);
    }
  }
  for (const auto& link : links) {
    link->Release(epoch);
    link->Close(Unavailable("the coordinator stops"));
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
      changed_ = false;
    }
    next = Turn();
  }
}

absl::Time EpochKeeper::Turn() {
  const absl::Time now = clock_.Now();
  Sweep(now);
  LookForBetterPlan(now);
  SurveyLinks(now);
  MembershipMove move;
  bool ready = false, serving = false;
  std::string reason;
  {
    absl::MutexLock lock(&mu_);
    move = NextMove(View(now), options_.rules);
    ready = present_.state == PlanState::kLoading && AllReady();
    serving = present_.state == PlanState::kServing;
    reason_ = serving ? "" : Reason(move);
    reason = reason_;
  }
  if (!serving) switch_.Stop(Unavailable(reason));
  if (move.plan) {
    Plan();
    return now;
  }
  if (ready) TryAndServe();
  return move.look_again;
}

void EpochKeeper::Sweep(absl::Time now) {
  std::vector<NodeId> silent, stalled;
  Epoch epoch;
  {
    absl::MutexLock lock(&mu_);
    silent = membership_.Silent(now);
    stalled = membership_.Stalled(now);
    epoch = present_.plan.epoch;
    membership_.Forget(now);
  }
  for (const NodeId node : silent) Lose(node, "was not heard of");
  for (const NodeId node : stalled) Fail(node, epoch, "made no progress with its stage");
}

int EpochKeeper::FailuresInARow() const {
  if (present_.state != PlanState::kBroken) return plan_failures_;
  return present_.lost_node ? 0 : plan_failures_ + 1;
}

MembershipView EpochKeeper::View(absl::Time now) const {
  MembershipView view;
  view.now = now;
  view.candidates = membership_.Candidates(now);
  view.plan = present_.state;
  view.considered = present_.considered;
  if (present_.state == PlanState::kBroken) view.broken_since = present_.since;
  view.not_before = present_.since + PlanDelay(FailuresInARow(), options_.rules);
  view.served_before = served_before_;
  view.active_sequences = active_sequences_.load();
  view.better_since = better_since_;
  return view;
}

bool EpochKeeper::InPlan(const Member& member) const {
  return !present_.alone && member.layers.size() > 0;
}

bool EpochKeeper::AllReady() const {
  size_t ready = 0;
  for (const Member* member : membership_.All()) {
    ready += InPlan(*member) && member->state == MemberState::kReady;
  }
  return ready == present_.plan.AllStages().size();
}

std::string EpochKeeper::Name(NodeId node) const {
  for (const Member* member : membership_.All()) {
    if (member->node == node) return absl::StrCat(member->hello.name, " (", NodeName(node), ")");
  }
  return NodeName(node);
}

std::string EpochKeeper::Reason(const MembershipMove& move) const {
  if (!preparing_.empty()) return preparing_;
  if (present_.state == PlanState::kLoading) {
    uint64_t held = 0, total = 0;
    for (const Member* member : membership_.All()) {
      if (!InPlan(*member)) continue;
      held += member->report.bytes_held;
      total += member->report.bytes_total;
    }
    return absl::StrCat("loading weights: ", total == 0 ? 0 : held * 100 / total, " %");
  }
  std::string reason = "planning";
  if (!move.waiting_for.empty()) reason = move.waiting_for;
  if (present_.state == PlanState::kRefused) reason = present_.refusal;
  for (const Member* member : membership_.All()) {
    if (member->left_out_until > clock_.Now()) {
      absl::StrAppend(&reason, "; ", Name(member->node),
                      " is left out, its stage failed several times: ", member->last_failure);
    }
  }
  return reason;
}

absl::Status EpochKeeper::ServeAlone(StagePlan plan, const std::vector<NodeId>& considered) {
  EndEpoch("loading the model");
  ASSIGN_OR_RETURN(plan.epoch, builder_.NextEpoch());
  ASSIGN_OR_RETURN(std::shared_ptr<Pipeline> pipeline, builder_.Alone(plan));
  absl::MutexLock lock(&mu_);
  preparing_.clear();
  present_ = Present();
  present_.state = PlanState::kServing;
  present_.since = clock_.Now();
  present_.plan = plan;
  present_.alone = true;
  present_.considered = considered;
  spdlog::info("epoch {}: this process computes all layers alone, {} tokens of KV", plan.epoch.v,
               plan.chains.front().kv_tokens);
  switch_.Serve(std::move(pipeline));
  return absl::OkStatus();
}

void EpochKeeper::Refuse(const std::vector<NodeId>& considered, const absl::Status& why) {
  absl::MutexLock lock(&mu_);
  preparing_.clear();
  if (Alive()) {
    // What serves, goes on.
    present_.considered = considered;
    return;
  }
  spdlog::warn("no plan: {}", std::string(why.message()));
  present_.state = PlanState::kRefused;
  present_.since = clock_.Now();
  present_.considered = considered;
  present_.refusal = std::string(why.message());
}

void EpochKeeper::EndEpoch(const std::string& why) {
  std::shared_ptr<ClusterPipeline> pipeline;
  {
    absl::MutexLock lock(&mu_);
    Learn();
    pipeline = std::move(present_.pipeline);
    present_.pipeline = nullptr;
    present_.state = PlanState::kNone;
    present_.alone = false;
    preparing_ = why;
    reason_ = why;
  }
  switch_.Stop(Unavailable(why));
  if (pipeline) pipeline->End(Unavailable(why));
}

std::vector<HopTarget> EpochKeeper::Targets(const std::vector<Stage>& stages) {
  std::vector<HopTarget> targets;
  for (const Stage& stage : stages) {
    const Member* member = membership_.Find(stage.node);
    targets.push_back({stage.node, member == nullptr ? "" : member->hello.hop_address});
  }
  return targets;
}

absl::Status EpochKeeper::Assign(StagePlan plan, const std::vector<NodeId>& considered) {
  EndEpoch("preparing the weights");
  ASSIGN_OR_RETURN(plan.epoch, builder_.NextEpoch());
  const std::vector<Stage> stages = plan.AllStages();
  std::vector<HopTarget> targets;
  {
    absl::MutexLock lock(&mu_);
    targets = Targets(stages);
  }
  ASSIGN_OR_RETURN(const std::vector<Assignment> assignments, builder_.Assignments(plan, targets));
  builder_.SetUpstreams(plan);

  absl::MutexLock lock(&mu_);
  preparing_.clear();
  const absl::Time now = clock_.Now();
  for (const Stage& stage : stages) {
    const Member* member = membership_.Find(stage.node);
    const bool there = member != nullptr && member->attached();
    if (!there || member->state == MemberState::kDraining) return absl::OkStatus();  // plan again
  }
  for (const Member* known : membership_.All()) {
    Member& member = *membership_.Find(known->node);
    const auto stage = std::find_if(stages.begin(), stages.end(),
                                    [&](const Stage& s) { return s.node == member.node; });
    if (stage == stages.end()) {
      if (member.attached() && member.layers.size() > 0) member.link->Release(plan.epoch);
      membership_.SetStage(member, LayerRange(), now);
      continue;
    }
    membership_.SetStage(member, stage->layers, now);
    member.link->Assign(assignments[static_cast<size_t>(stage - stages.begin())]);
    spdlog::info("epoch {}: layers [{}, {}) on {}", plan.epoch.v, stage->layers.first,
                 stage->layers.last, Name(member.node));
  }
  present_ = Present();
  present_.state = PlanState::kLoading;
  present_.since = now;
  last_plan_ = plan;
  present_.plan = std::move(plan);
  present_.considered = considered;
  return absl::OkStatus();
}

void EpochKeeper::TryAndServe() {
  StagePlan plan;
  std::vector<PlannerNode> nodes;
  std::vector<Stage> stages;
  std::vector<HopTarget> targets;
  {
    absl::MutexLock lock(&mu_);
    plan = present_.plan;
    stages = plan.AllStages();
    targets = Targets(stages);
    std::vector<Candidate> holders;
    holders.reserve(stages.size());
    for (const Stage& stage : stages) holders.push_back({stage.node, absl::Time()});
    nodes = membership_.PlannerNodes(holders);
  }
  const Epoch epoch = plan.epoch;
  const auto estimate = [plan, nodes, layers = options_.layers](size_t chain, size_t tokens) {
    return EstimateStep(plan.chains[chain], layers, nodes, tokens);
  };
  const std::shared_ptr<ClusterPipeline> pipeline = builder_.OverWorkers(
      plan, targets, estimate,
      [this, epoch](const absl::Status& why) { Break(epoch, std::string(why.message()), false); });
  {
    // From here on, Break ends the probe too.
    absl::MutexLock lock(&mu_);
    if (present_.state != PlanState::kLoading || present_.plan.epoch != epoch) return;
    present_.pipeline = pipeline;
  }
  const absl::Status probed = pipeline->Probe(kProbeTimeout + 20 * estimate(0, 1));
  if (!probed.ok()) {
    const std::string why = absl::StrCat("its trial failed: ", probed.message());
    Break(epoch, why, false);
    return;
  }
  absl::MutexLock lock(&mu_);
  if (present_.state != PlanState::kLoading || present_.plan.epoch != epoch) return;
  present_.state = PlanState::kServing;
  present_.since = clock_.Now();
  next_look_ = present_.since + options_.rules.replan_interval;
  served_before_ = true;
  reason_.clear();
  for (const Stage& stage : stages) membership_.Find(stage.node)->stage_failures = 0;
  spdlog::info("epoch {} serves: {} stages, {} tokens of KV", epoch.v, stages.size(),
               plan.chains.front().kv_tokens);
  switch_.Serve(pipeline);
}

void EpochKeeper::Break(Epoch epoch, const std::string& why, bool lost_node) {
  std::shared_ptr<ClusterPipeline> pipeline;
  {
    absl::MutexLock lock(&mu_);
    changed_ = true;
    if (present_.plan.epoch != epoch || present_.alone) return;
    if (present_.state == PlanState::kBroken) present_.lost_node |= lost_node;
    if (!Alive()) return;
    const absl::Time now = clock_.Now();
    if (present_.state == PlanState::kServing && now - present_.since > kGoodEpoch) {
      plan_failures_ = 0;
    }
    spdlog::warn("epoch {} is over: {}", epoch.v, why);
    present_.state = PlanState::kBroken;
    present_.since = now;
    present_.lost_node = lost_node;
    pipeline = present_.pipeline;
  }
  if (pipeline) pipeline->End(Unavailable(why));
}

}  // namespace efedllm
