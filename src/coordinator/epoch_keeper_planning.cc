// What the EpochKeeper plans, and what it learns for that from the steps that were computed.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/epoch_keeper.h"

namespace efedllm {
namespace {

// Fewer steps of a size say little.
constexpr uint32_t kLeastSteps = 4;

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

void EpochKeeper::LookForBetterPlan(absl::Time now) {
  PlannerInput input;
  StagePlan plan;
  {
    absl::MutexLock lock(&mu_);
    const bool serves = present_.state == PlanState::kServing && !present_.alone;
    if (!serves || now < next_look_) return;
    next_look_ = now + options_.rules.replan_interval;
    better_since_ = absl::InfiniteFuture();
    Learn();
    plan = present_.plan;
    for (const Stage& stage : plan.AllStages()) {
      if (measured_.count(stage.node) == 0) return;  // nothing to compare with yet
    }
    input = InputFor(membership_.PlannerNodes(membership_.Candidates(now)));
  }
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  if (!report.ok() || report->plan.chains == plan.chains) return;
  const PlanPrediction present = PredictPlan(input, plan);
  const PlanPrediction& better = report->plan.prediction;
  if (RequestSeconds(present) < options_.rules.replan_gain * RequestSeconds(better)) return;
  spdlog::info(
      "by measured times another plan promises {:.1f} tokens/s instead of {:.1f}, and {:.0f} "
      "instead of {:.0f} prompt tokens/s",
      better.tokens_per_second, present.tokens_per_second, better.prompt_tokens_per_second,
      present.prompt_tokens_per_second);
  absl::MutexLock lock(&mu_);
  if (present_.plan.epoch == plan.epoch) better_since_ = now;
}

PlannerInput EpochKeeper::InputFor(const std::vector<PlannerNode>& nodes) const {
  PlannerInput input;
  input.layers = options_.layers;
  input.nodes = nodes;
  for (PlannerNode& node : input.nodes) {
    const auto measured = measured_.find(node.node);
    if (measured != measured_.end()) node.measured = measured->second;
  }
  input.links = membership_.PlannerLinks(nodes);
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
  {
    absl::MutexLock lock(&mu_);
    Learn();
    explanation.input = InputFor(membership_.PlannerNodes(membership_.Candidates(clock_.Now())));
    if (Alive() && !present_.alone) explanation.plan = present_.plan;
    if (present_.pipeline != nullptr) times = present_.pipeline->Times();
  }
  const PlannerInput& input = explanation.input;
  if (!input.nodes.empty()) explanation.next = MakePlan(input);
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

void EpochKeeper::Plan() {
  PlannerInput input;
  std::vector<NodeId> considered;
  {
    absl::MutexLock lock(&mu_);
    Learn();
    better_since_ = absl::InfiniteFuture();
    input = InputFor(membership_.PlannerNodes(membership_.Candidates(clock_.Now())));
    for (const PlannerNode& node : input.nodes) considered.push_back(node.node);
    plan_failures_ = FailuresInARow();
  }
  if (input.nodes.empty()) return PlanAlone(considered, absl::OkStatus());
  absl::StatusOr<PlanReport> report = MakePlan(input);
  if (!report.ok()) return PlanAlone(considered, report.status());
  for (const std::string& advice : report->advice) spdlog::info("{}", advice);
  {
    absl::MutexLock lock(&mu_);
    if (Alive() && !present_.alone && present_.plan.chains == report->plan.chains) {
      spdlog::info("the plan stays as it is with {} workers", considered.size());
      present_.considered = considered;
      return;
    }
  }
  const absl::Status assigned = Assign(std::move(report->plan), considered);
  if (!assigned.ok()) Refuse(considered, assigned);
}

void EpochKeeper::PlanAlone(const std::vector<NodeId>& considered,
                            const absl::Status& cluster_refusal) {
  if (options_.rules.min_workers > 0) return Refuse(considered, cluster_refusal);
  {
    absl::MutexLock lock(&mu_);
    if (Alive()) {
      present_.considered = considered;
      return;
    }
  }
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

}  // namespace efedllm
