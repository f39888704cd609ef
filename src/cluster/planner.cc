#include "cluster/planner.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cluster/chain_order.h"
#include "cluster/layer_partition.h"
#include "cluster/plan_repair.h"
#include "cluster/plan_search.h"
#include "common/units.h"

namespace efedllm {
namespace {

// So much better must be what gives up one chain over all nodes that help: such a chain is the
// fastest for a prompt.
constexpr double kClearly = 1.25;
// So much dearer may a plan be that leaves out nobody, as long as nodes only measured themselves.
constexpr double kDoubt = 1.5;
// Hops of a chain that take less than this exclude nobody.
constexpr double kNearSeconds = 0.005;
constexpr size_t kMostExplained = 64;

uint64_t SaturatingAdd(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

absl::Status DoesNotFit(const LayerSums& layers, const PlannerInput& input) {
  const PlannerRules& rules = input.rules;
  const uint64_t tokens = rules.kv_tokens_least;
  const uint32_t count = layers.layers();
  uint64_t room = 0;
  std::vector<const PlannerNode*> nodes;
  for (const PlannerNode& node : input.nodes) {
    const uint64_t memory = node.profile.memory_bytes;
    room = SaturatingAdd(room, memory - std::min(memory, rules.overhead_bytes));
    nodes.push_back(&node);
  }
  const PartitionRules partition{tokens, tokens, rules.overhead_bytes};
  const uint32_t placed = LayerPartitioner(layers, nodes, partition).LayersThatFit(tokens);
  // One more machine that takes the layers left over.
  const uint64_t missing =
      SaturatingAdd(layers.Bytes({placed, count}, tokens), rules.overhead_bytes);
  return absl::ResourceExhaustedError(absl::StrCat(
      "the model does not fit: its layers need ", FormatBytes(layers.Bytes({0, count}, tokens)),
      " (", FormatBytes(layers.WeightBytes({0, count})), " of weights and KV for ", tokens,
      " tokens); ", nodes.size(), nodes.size() == 1 ? " node has " : " nodes have ",
      FormatBytes(room), ", enough for ", placed, " of ", count, " layers; ", FormatBytes(missing),
      " more on another node is missing. Add workers, raise --memory, or take a smaller model or "
      "context"));
}

std::string Rates(const PlanPrediction& p, size_t streams) {
  return absl::StrFormat("%.1f tokens/s for one stream and %.1f for %d, and %.0f prompt tokens/s",
                         p.single_tokens_per_second, p.tokens_per_second, streams,
                         p.prompt_tokens_per_second);
}

// The candidates' outcome, compared.
class Chooser {
 public:
  explicit Chooser(const PlannerInput& input) : input_(input), search_(input) {}

  absl::StatusOr<PlanReport> Run() {
    chain_ = search_.BestChain(1);
    PreferAll();
    wide_ = search_.BestChain(2);
    single_ = search_.BestSingle();
    if (input_.rules.layout != Layout::kChain && input_.nodes.size() > 1) {
      replicas_ = search_.BestReplicas();
    }
    if (!chain_ && !replicas_) return DoesNotFit(search_.layers(), input_);
    const PlanCandidate chosen = search_.Settle(Choose());
    Fill(chosen);
    return std::move(report_);
  }

 private:
  bool AllMeasured() const {
    return std::all_of(input_.nodes.begin(), input_.nodes.end(),
                       [](const PlannerNode& node) { return !node.measured.empty(); });
  }
  // A probe beside other programs' work errs, and who is left out because of it is never measured
  // at work. So at first everybody takes part whom that does not cost clearly too much.
  void PreferAll() {
    if (AllMeasured()) return;
    std::optional<PlanCandidate> all = search_.BestChain(input_.nodes.size());
    if (all && chain_ && all->request_seconds <= kDoubt * chain_->request_seconds) chain_ = all;
  }

  // For one sequence and for many, by this factor.
  bool OneIsFaster(double by) const {
    if (!single_ || !wide_) return false;
    const PlanPrediction& one = single_->prediction;
    const PlanPrediction& many = wide_->prediction;
    return one.single_tokens_per_second > by * many.single_tokens_per_second &&
           one.tokens_per_second > by * many.tokens_per_second;
  }
  bool OneIsClearlyFaster() const {
    return OneIsFaster(kClearly) && search_.HopSeconds(*wide_) >= kNearSeconds;
  }
  // One chain that all nodes of a near network can be in: against it a probe's word is not enough.
  bool ChainIsNear() const {
    return wide_ && wide_->chains[0].nodes.size() == input_.nodes.size() &&
           search_.HopSeconds(*wide_) < kNearSeconds;
  }
  bool ReplicasServeMore() const {
    return replicas_ &&
           (!chain_ || replicas_->far_tokens_per_second > kClearly * chain_->far_tokens_per_second);
  }

  PlanCandidate Choose() const {
    const Layout layout = input_.rules.layout;
    if (layout == Layout::kChain && wide_) return *wide_;
    if (!chain_ || (layout == Layout::kReplicas && replicas_)) return *replicas_;
    const bool sure = AllMeasured() || !ChainIsNear();
    if (layout == Layout::kAuto && ReplicasServeMore() && sure) return *replicas_;
    if (layout == Layout::kAuto && OneIsClearlyFaster()) return *single_;
    return *chain_;
  }

  void AddAlternative(const std::string& what, const std::optional<PlanCandidate>& candidate) {
    if (!candidate) return;
    size_t nodes = 0;
    for (const ChainShape& chain : candidate->chains) nodes += chain.nodes.size();
    report_.alternatives.push_back({what, candidate->chains.size(), nodes, candidate->prediction});
  }

  void Fill(const PlanCandidate& chosen) {
    report_.plan = search_.ToPlan(chosen);
    AddAlternative("one chain", wide_);
    if (single_) {
      const std::string& name = input_.nodes[single_->chains[0].nodes[0]].name;
      AddAlternative(absl::StrCat("one node alone (", name, ")"), single_);
    }
    AddAlternative("replicas", replicas_);
    Advise(chosen);
    ExplainStandby(chosen);
  }

  void Advise(const PlanCandidate& chosen) {
    const size_t streams = input_.rules.streams;
    if (OneIsFaster(1)) {
      const std::string& name = input_.nodes[single_->chains[0].nodes[0]].name;
      report_.advice.push_back(absl::StrCat(
          "one node is faster: ", name, " alone is predicted to give ",
          Rates(single_->prediction, streams), "; the chain over ", wide_->chains[0].nodes.size(),
          " nodes ", Rates(wide_->prediction, streams)));
    }
    if (chosen.chains.size() == 1 && ReplicasServeMore()) {
      report_.advice.push_back(absl::StrCat(
          "replicas would serve more: ", replicas_->chains.size(), " chains are predicted to give ",
          Rates(replicas_->prediction, streams), " (--layout replicas)"));
    }
    for (const Chain& chain : report_.plan.chains) {
      for (const Stage& stage : chain.stages) {
        if (!stage.relayed) continue;
        report_.advice.push_back(absl::StrCat(
            search_.Name(stage.node),
            " can't reach the next stage's node, so the coordinator passes its frames on: open "
            "that node's port to it, or give it an address with --advertise"));
      }
    }
  }

  void ExplainStandby(const PlanCandidate& chosen) {
    std::vector<bool> used(input_.nodes.size());
    for (const ChainShape& chain : chosen.chains) {
      for (const size_t node : chain.nodes) used[node] = true;
    }
    for (size_t i = 0; i < used.size(); ++i) {
      if (used[i]) continue;
      std::string why = "the other nodes hold all layers";
      if (report_.standby.size() < kMostExplained) why = search_.WhyStandby(chosen, i);
      report_.standby.push_back({input_.nodes[i].node, why});
    }
  }

  const PlannerInput& input_;
  PlanSearch search_;
  std::optional<PlanCandidate> chain_;  // the best, be it of one stage
  std::optional<PlanCandidate> wide_;   // the best of several stages
  std::optional<PlanCandidate> single_, replicas_;
  PlanReport report_;
};

}  // namespace

absl::StatusOr<PlanReport> MakePlan(const PlannerInput& input) {
  if (input.layers.empty()) return absl::InvalidArgumentError("a plan needs at least one layer");
  if (input.nodes.empty()) return absl::InvalidArgumentError("a plan needs at least one node");
  absl::StatusOr<PlanReport> report = Chooser(input).Run();
  if (report.ok()) KeepOutputs(input, report->plan);
  return report;
}

double RequestSeconds(const PlanPrediction& prediction) {
  return kPromptTokens / prediction.prompt_tokens_per_second +
         kGeneratedTokens / prediction.tokens_per_second;
}

PlanPrediction PredictPlan(const PlannerInput& input, const StagePlan& plan) {
  const PlanSearch search(input);
  const std::optional<PlanCandidate> candidate = search.FromPlan(plan);
  return candidate ? candidate->prediction : PlanPrediction();
}

std::vector<ChainForecast> ForecastPlan(const PlannerInput& input, const StagePlan& plan) {
  const PlanSearch search(input);
  const std::optional<PlanCandidate> candidate = search.FromPlan(plan);
  std::vector<ChainForecast> forecasts;
  if (!candidate) return forecasts;
  const SpeedModel& model = search.model();
  const std::vector<size_t> dealt = model.Deal(candidate->chains, input.rules.streams);
  for (size_t c = 0; c < candidate->chains.size(); ++c) {
    const ChainShape& chain = candidate->chains[c];
    ChainForecast forecast;
    forecast.streams = dealt[c];
    forecast.decode = model.Decode(chain, dealt[c]);
    forecast.prediction = model.Predict(chain, dealt[c]);
    const double rows = forecast.decode.rows;
    const double share = forecast.decode.micro_batches / forecast.decode.round_seconds;
    for (size_t i = 0; i < chain.nodes.size(); ++i) {
      const double seconds = model.StageSeconds(chain, i, rows);
      forecast.stages.push_back({seconds, model.HopSeconds(chain, i, rows), seconds * share});
      if (seconds > forecast.stages[forecast.bottleneck].decode_seconds) forecast.bottleneck = i;
    }
    forecast.head_share = model.HeadSeconds(rows) * share;
    forecasts.push_back(std::move(forecast));
  }
  return forecasts;
}

}  // namespace efedllm
