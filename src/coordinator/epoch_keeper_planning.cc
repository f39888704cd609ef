// What the EpochKeeper plans, and what it learns for that from the steps that were computed.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/epoch_keeper.h"

namespace efedllm {
namespace {

// Fewer steps of a size say little.
constexpr uint32_t kLeastSteps = 4;
constexpr absl::Duration kCodecInterval = absl::Seconds(10);
// So much longer may requests take on a plan that moves few stages.
constexpr double kRepairWorth = 1.5;

}  // namespace

void EpochKeeper::Learn() {
  if (present_.pipeline == nullptr || present_.alone) return;
  const std::vector<ChainTimes> times = present_.pipeline->Times();
  const LayerSums sums(options_.layers);
  for (size_t c = 0; c < present_.plan.chains.size(); ++c) {
    const std::vector<Stage>& stages = present_.plan.chains[c].stages;
    for (size_t i = 0; i < stages.size(); ++i) {
      const Member* member = membership_.Find(stages[i].node);
      if (member == nullptr) continue;
      std::vector<SpeedFactor> factors;
      for (const RowTimes::Point& point : times[c].stage(i).Points(kLeastSteps)) {
        const double expected = sums.Seconds(member->hello.profile, stages[i].layers, point.rows);
        factors.push_back({point.rows, point.seconds / expected});
      }
      if (!factors.empty()) measured_[stages[i].node] = std::move(factors);
    }
  }
}

bool EpochKeeper::HasStraggler() {
  const std::vector<ChainTimes> times = present_.pipeline->Times();
  bool straggles = false;
  for (size_t c = 0; c < present_.plan.chains.size(); ++c) {
    const std::vector<Stage>& stages = present_.plan.chains[c].stages;
    for (size_t i = 0; i < stages.size(); ++i) {
      const double now = times[c].stage(i).Seconds(1);
      if (now <= 0) continue;
      double& best = best_seconds_.try_emplace(stages[i].node, now).first->second;
      best = std::min(best, now);
      if (now <= options_.rules.straggler_factor * best) continue;
      straggles = true;
      lapses_.emplace_back(stages[i].node, TrustEventKind::kLate);
    }
  }
  return straggles;
}

void EpochKeeper::LookForBetterPlan(absl::Time now) {
  PlannerInput input, working;
  StagePlan plan;
  double gain = options_.rules.replan_gain;
  {
    absl::MutexLock lock(&mu_);
    if (!Serves() || present_.alone || next_ || now < next_straggler_look_) return;
    next_straggler_look_ = now + options_.rules.straggler_interval;
    const bool straggler = HasStraggler();
    if (!straggler && now < next_look_) return;
    if (straggler) gain = options_.rules.straggler_gain;
    next_look_ = now + options_.rules.replan_interval;
    better_since_ = absl::InfiniteFuture();
    Learn();
    plan = present_.plan;
    for (const Stage& stage : plan.AllStages()) {
      if (measured_.count(stage.node) == 0) return;  // nothing to compare with yet
    }
    input = InputFor(membership_.PlannerNodes(membership_.Candidates(now)));
    working = WithoutStandby(input);
  }
  const absl::StatusOr<PlanReport> report = MakePlan(working);
  if (!report.ok() || report->plan.chains == plan.chains) return;
  const PlanPrediction present = PredictPlan(input, plan);
  const PlanPrediction& better = report->plan.prediction;
  if (RequestSeconds(present) < gain * RequestSeconds(better)) return;
  spdlog::info(
      "by measured times another plan promises {:.1f} tokens/s instead of {:.1f}, and {:.0f} "
      "instead of {:.0f} prompt tokens/s",
      better.tokens_per_second, present.tokens_per_second, better.prompt_tokens_per_second,
      present.prompt_tokens_per_second);
  absl::MutexLock lock(&mu_);
  if (present_.plan.epoch != plan.epoch) return;
  // Clearly better is worth a moment's pause at once.
  const bool clearly =
      RequestSeconds(present) > options_.rules.straggler_gain * RequestSeconds(better);
  better_since_ = clearly ? absl::InfinitePast() : now;
}

void EpochKeeper::OnBases() {
  absl::MutexLock lock(&mu_);
  next_codec_look_ = absl::InfinitePast();
  changed_ = true;
}

void EpochKeeper::LookForBetterCodecs(absl::Time now) {
  StagePlan plan;
  PlannerInput known;
  std::vector<HopTarget> targets;
  std::vector<NodeId> considered;
  {
    absl::MutexLock lock(&mu_);
    if (!Serves() || present_.alone || next_ || MustMove() || now < next_codec_look_) return;
    next_codec_look_ = now + kCodecInterval;
    plan = present_.plan;
    considered = present_.considered;
    known = InputFor(membership_.PlannerNodes(membership_.Candidates(now)));
    targets = Targets(plan.AllStages());
  }
  if (!builder_.WouldRecode(plan, targets, known)) return;
  const absl::Status prepared = Prepare(std::move(plan), considered);
  if (!prepared.ok()) {
    spdlog::warn("codecs stay as they are: {}", std::string(prepared.message()));
  }
}

PlannerInput EpochKeeper::InputFor(const std::vector<PlannerNode>& nodes) const {
  PlannerInput input;
  input.layers = options_.layers;
  input.nodes = nodes;
  for (PlannerNode& node : input.nodes) {
    const auto measured = measured_.find(node.node);
    if (measured != measured_.end()) node.measured = measured->second;
    if (!options_.routing_share) continue;
    const double share = options_.routing_share(node.node);
    node.profile.read_bytes_per_second *= share;
    node.profile.int8_ops_per_second *= share;
    node.profile.f32_flops_per_second *= share;
  }
  input.links = membership_.PlannerLinks(nodes, clock_.Now());
  input.rules = options_.planner;
  // The coordinator did not measure itself: it is taken for one like the fastest of them.
  for (const PlannerNode& node : nodes) {
    NodeProfile& head = input.rules.head.profile;
    if (node.profile.read_bytes_per_second > head.read_bytes_per_second) head = node.profile;
  }
  // Also of a plan that broke: its weights are where they were.
  input.present = last_plan_;
  return input;
}

PlanExplanation EpochKeeper::Explain() {
  PlanExplanation explanation;
  explanation.status = Status();
  std::vector<ChainTimes> times;
  PlannerInput working;
  {
    absl::MutexLock lock(&mu_);
    Learn();
    explanation.input = InputFor(membership_.PlannerNodes(membership_.Candidates(clock_.Now())));
    working = WithoutStandby(explanation.input);
    if (Serves() && !present_.alone) explanation.plan = present_.plan;
    if (present_.pipeline != nullptr) times = present_.pipeline->Times();
  }
  const PlannerInput& input = explanation.input;
  if (!input.nodes.empty()) explanation.next = MakePlan(working);
  explanation.forecasts = ForecastPlan(input, explanation.plan);
  const LayerSums sums(input.layers);
  for (size_t c = 0; c < explanation.forecasts.size(); ++c) {
    const uint32_t rows = explanation.forecasts[c].decode.rows;
    const std::vector<Stage>& stages = explanation.plan.chains[c].stages;
    std::vector<double>& by_profile = explanation.by_profile.emplace_back(stages.size());
    std::vector<double>& by_measures = explanation.by_measures.emplace_back(stages.size());
    for (size_t i = 0; i < stages.size(); ++i) {
      const auto node =
          std::find_if(input.nodes.begin(), input.nodes.end(),
                       [&](const PlannerNode& n) { return n.node == stages[i].node; });
      by_profile[i] = sums.Seconds(node->profile, stages[i].layers, rows);
      if (c < times.size()) by_measures[i] = times[c].stage(i).Seconds(rows);
    }
  }
  return explanation;
}

PlannerInput EpochKeeper::WithoutStandby(PlannerInput input) const {
  std::vector<PlannerNode>& nodes = input.nodes;
  const std::vector<Stage> stages = last_plan_.AllStages();
  const auto used = [&](const PlannerNode& node) {
    return std::any_of(stages.begin(), stages.end(),
                       [&](const Stage& stage) { return stage.node == node.node; });
  };
  // Rather one that holds nothing, unless one that does is less than half as fast.
  const auto worth = [&](const PlannerNode& node) {
    const double rate = node.profile.read_bytes_per_second / FactorAt(node.measured, 1);
    return used(node) ? 2 * rate : rate;
  };
  for (size_t i = 0; i < options_.standby && nodes.size() > 1; ++i) {
    nodes.erase(std::min_element(
        nodes.begin(), nodes.end(),
        [&](const PlannerNode& a, const PlannerNode& b) { return worth(a) < worth(b); }));
  }
  return input;
}

// As few stages as possible move when one is lost, unless that is much slower than what could be.
absl::StatusOr<StagePlan> EpochKeeper::ChoosePlan(const PlannerInput& input) {
  PlannerInput working = input;
  bool repair = false;
  {
    absl::MutexLock lock(&mu_);
    working = WithoutStandby(input);
    repair = !Serves() || MustMove();
  }
  absl::StatusOr<PlanReport> best = MakePlan(working);
  if (!best.ok() && working.nodes.size() < input.nodes.size()) best = MakePlan(input);
  const std::optional<StagePlan> repaired =
      repair ? RepairPlan(input, input.present) : std::nullopt;
  if (repaired && (!best.ok() || RequestSeconds(repaired->prediction) <=
                                     kRepairWorth * RequestSeconds(best->plan.prediction))) {
    return *repaired;
  }
  RETURN_IF_ERROR(best.status());
  for (const std::string& advice : best->advice) spdlog::info("{}", advice);
  return std::move(best->plan);
}

void EpochKeeper::Plan() {
  PlannerInput input;
  std::vector<NodeId> considered;
  {
    absl::MutexLock lock(&mu_);
    Learn();
    better_since_ = absl::InfiniteFuture();
    input = InputFor(membership_.PlannerNodes(membership_.Candidates(clock_.Now())));
    for (const PlannerNode& node : input.nodes) considered.push_back(node.node);
    expected_until_ = absl::InfinitePast();
  }
  if (input.nodes.empty()) return PlanAlone(considered, absl::OkStatus());
  absl::StatusOr<StagePlan> plan = ChoosePlan(input);
  if (!plan.ok()) return PlanAlone(considered, plan.status());
  {
    absl::MutexLock lock(&mu_);
    const bool same = next_ ? next_->plan.chains == plan->chains
                            : Serves() && !present_.alone && present_.plan.chains == plan->chains;
    if (same) {
      spdlog::info("the plan stays as it is with {} workers", considered.size());
      (next_ ? next_->considered : present_.considered) = considered;
      return;
    }
  }
  MakeRoom(input, *plan);
  const absl::Status prepared = Prepare(*std::move(plan), considered);
  if (!prepared.ok()) Refuse(considered, prepared);
}

// Nodes without memory for two stages give up the one that serves first.
void EpochKeeper::MakeRoom(const PlannerInput& input, const StagePlan& next) {
  Epoch epoch;
  {
    absl::MutexLock lock(&mu_);
    if (!Serves() || present_.alone || FitsBeside(input, present_.plan, next)) return;
    epoch = present_.plan.epoch;
  }
  Break(epoch, "a node has no memory for its next stage beside this one", /*lost_node=*/true);
}

void EpochKeeper::PlanAlone(const std::vector<NodeId>& considered,
                            const absl::Status& cluster_refusal) {
  bool alone = false;
  {
    absl::MutexLock lock(&mu_);
    alone = present_.alone && Serves();
  }
  if (alone || options_.rules.min_workers > 0) return Refuse(considered, cluster_refusal);
  PlannerInput input;
  input.layers = options_.layers;
  input.nodes = {{kCoordinatorNode, "the coordinator", options_.own, {}}};
  input.rules = options_.planner;
  input.rules.overhead_bytes += options_.own_overhead_bytes;
  absl::StatusOr<PlanReport> plan = MakePlan(input);
  if (!plan.ok() && cluster_refusal.ok()) {
    return Refuse(considered, absl::UnavailableError(absl::StrCat(
                                  plan.status().message(), "; start workers to add theirs")));
  }
  if (!plan.ok()) return Refuse(considered, cluster_refusal);
  if (!cluster_refusal.ok()) {
    spdlog::warn("computing alone: {}", std::string(cluster_refusal.message()));
  }
  const absl::Status served = ServeAlone(std::move(plan->plan), considered);
  if (!served.ok()) Refuse(considered, served);
}

absl::Status EpochKeeper::ServeAlone(StagePlan plan, const std::vector<NodeId>& considered) {
  std::shared_ptr<ClusterPipeline> before;
  {
    absl::MutexLock lock(&mu_);
    Learn();
    before = std::move(present_.pipeline);
    present_ = Present();
    next_.reset();
    membership_.ForgetNext();
    preparing_ = reason_ = "loading the model";
  }
  const absl::Status why = absl::UnavailableError("loading the model");
  switch_.Stop(why);
  if (before) before->End(why);
  ASSIGN_OR_RETURN(plan.epoch, builder_.NextEpoch());
  ASSIGN_OR_RETURN(std::shared_ptr<Pipeline> pipeline, builder_.Alone(plan));
  std::vector<std::shared_ptr<WorkerLink>> released;
  {
    absl::MutexLock lock(&mu_);
    preparing_.clear();
    present_.state = PlanState::kServing;
    present_.since = clock_.Now();
    present_.plan = plan;
    present_.alone = true;
    present_.considered = considered;
    served_ = StagePlan();
    for (Member* member : membership_.Begin(plan.epoch)) {
      if (member->attached()) released.push_back(member->link);
    }
    spdlog::info("epoch {}: this process computes all layers alone, {} tokens of KV", plan.epoch.v,
                 plan.chains.front().kv_tokens);
    switch_.Serve(std::move(pipeline));
  }
  for (const auto& link : released) link->Release(plan.epoch);
  return absl::OkStatus();
}

// There is no plan for these. What serves goes on, unless one of its nodes wants to leave.
void EpochKeeper::Refuse(const std::vector<NodeId>& considered, const absl::Status& why) {
  const std::string message = why.ok() ? "no worker is left" : std::string(why.message());
  std::shared_ptr<ClusterPipeline> given_up;
  Epoch epoch;
  bool leaving = false;
  {
    absl::MutexLock lock(&mu_);
    preparing_.clear();
    epoch = present_.plan.epoch;
    if (next_) given_up = std::move(next_->pipeline);
    next_.reset();
    membership_.ForgetNext();
    present_.considered = considered;
    if (Serves()) {
      if (!present_.alone) spdlog::warn("no other plan: {}", message);
      refused_ = considered;
      for (const Stage& stage : present_.plan.AllStages()) {
        const Member* member = membership_.Find(stage.node);
        leaving |= member != nullptr && member->leaving;
      }
    } else {
      const bool again = present_.state == PlanState::kRefused && present_.refusal == message;
      if (!again) spdlog::warn("no plan: {}", message);
      present_.state = PlanState::kRefused;
      present_.since = clock_.Now();
      present_.refusal = message;
    }
  }
  if (given_up) given_up->End(absl::UnavailableError(message));
  if (leaving) Break(epoch, absl::StrCat("a node leaves: ", message), /*lost_node=*/true);
}

}  // namespace efedllm
