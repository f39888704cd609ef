#include "coordinator/plan_explanation.h"

#include <algorithm>

namespace efedllm {
namespace {

void FillSpeed(const PlanPrediction& prediction, v1::PlanSpeed& speed) {
  speed.set_single_stream(prediction.single_tokens_per_second);
  speed.set_all_streams(prediction.tokens_per_second);
  speed.set_prompt(prediction.prompt_tokens_per_second);
}

void FillNodes(const PlanExplanation& explanation, v1::ExplainPlanReply& reply) {
  const std::vector<Stage> stages = explanation.plan.AllStages();
  for (const PlannerNode& node : explanation.input.nodes) {
    v1::PlanNode& out = *reply.add_nodes();
    out.set_node(node.node.v);
    out.set_name(node.name);
    out.set_memory_bytes(node.profile.memory_bytes);
    out.set_read_bytes_per_second(node.profile.read_bytes_per_second);
    out.set_int8_ops_per_second(node.profile.int8_ops_per_second);
    out.set_f32_flops_per_second(node.profile.f32_flops_per_second);
    for (const SpeedFactor& factor : node.measured) {
      v1::PlanMeasured& measured = *out.add_measured();
      measured.set_rows(factor.rows);
      measured.set_factor(factor.factor);
    }
    out.set_standby(std::none_of(stages.begin(), stages.end(),
                                 [&](const Stage& stage) { return stage.node == node.node; }));
    if (!out.standby() || !explanation.next.ok()) continue;
    out.set_why("a plan that were made now would use it");
    for (const StandbyNode& standby : explanation.next->standby) {
      if (standby.node == node.node) out.set_why(standby.why);
    }
  }
}

void FillLinks(const PlanExplanation& explanation, v1::ExplainPlanReply& reply) {
  for (const LinkSpeed& link : explanation.input.links) {
    v1::PlanLink& out = *reply.add_links();
    out.set_from(link.from.v);
    out.set_to(link.to.v);
    out.set_rtt_millis(absl::ToDoubleMilliseconds(link.rtt));
    out.set_bytes_per_second(link.bytes_per_second);
    out.set_reachable(link.reachable);
  }
}

void FillChain(const PlanExplanation& explanation, size_t number, v1::PlanChain& out) {
  const Chain& chain = explanation.plan.chains[number];
  const ChainForecast& forecast = explanation.forecasts[number];
  out.set_kv_tokens(chain.kv_tokens);
  out.set_streams(static_cast<uint32_t>(forecast.streams));
  out.set_micro_batches(forecast.decode.micro_batches);
  out.set_rows(forecast.decode.rows);
  out.set_head_busy(forecast.head_share);
  FillSpeed(forecast.prediction, *out.mutable_predicted());
  for (size_t i = 0; i < chain.stages.size(); ++i) {
    v1::PlanStage& stage = *out.add_stages();
    stage.set_node(chain.stages[i].node.v);
    stage.set_first_layer(chain.stages[i].layers.first);
    stage.set_last_layer(chain.stages[i].layers.last);
    stage.set_relayed(chain.stages[i].relayed);
    stage.set_predicted_millis(1e3 * explanation.by_profile[number][i]);
    stage.set_measured_millis(1e3 * explanation.by_measures[number][i]);
    stage.set_hop_millis(1e3 * forecast.stages[i].hop_seconds);
    stage.set_busy(forecast.stages[i].share);
    stage.set_bottleneck(forecast.bottleneck == i);
  }
}

}  // namespace

void FillExplanation(const PlanExplanation& explanation, v1::ExplainPlanReply& reply) {
  reply.set_epoch(explanation.status.epoch.v);
  reply.set_state(explanation.status.state);
  reply.set_reason(explanation.status.reason);
  reply.set_streams(static_cast<uint32_t>(explanation.input.rules.streams));
  FillNodes(explanation, reply);
  FillLinks(explanation, reply);
  for (size_t i = 0; i < explanation.forecasts.size(); ++i) {
    FillChain(explanation, i, *reply.add_chains());
  }
  FillSpeed(PredictPlan(explanation.input, explanation.plan), *reply.mutable_predicted());
  if (!explanation.next.ok()) {
    reply.add_advice(std::string(explanation.next.status().message()));
    return;
  }
  FillSpeed(explanation.next->plan.prediction, *reply.mutable_next());
  for (const PlanAlternative& alternative : explanation.next->alternatives) {
    v1::PlanAlternative& out = *reply.add_alternatives();
    out.set_what(alternative.what);
    out.set_chains(static_cast<uint32_t>(alternative.chains));
    out.set_nodes(static_cast<uint32_t>(alternative.nodes));
    FillSpeed(alternative.prediction, *out.mutable_predicted());
  }
  for (const std::string& advice : explanation.next->advice) reply.add_advice(advice);
}

}  // namespace efedllm
