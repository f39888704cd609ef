#include "coordinator/incentive_metrics.h"

#include <string>
#include <utility>

#include "incentive/audit_policy.h"
#include "net/credentials.h"

namespace efedllm {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

template <class Number>
ClientMetric Value(MetricType type, Number value, std::vector<ClientMetric::Label> labels = {}) {
  ClientMetric metric;
  metric.label = std::move(labels);
  (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) =
      static_cast<double>(value);
  return metric;
}

template <class Number>
MetricFamily Gauge(const char* name, const char* help, Number value) {
  return {name, help, MetricType::Gauge, {Value(MetricType::Gauge, value)}};
}

void AddAudits(const AuditCounters& counters, std::vector<MetricFamily>& families) {
  const MetricType type = MetricType::Counter;
  families.push_back({"efedllm_audits_total",
                      "Chunks that were audited, by verdict",
                      type,
                      {Value(type, counters.honest, {{"verdict", "honest"}}),
                       Value(type, counters.lied, {{"verdict", "lied"}}),
                       Value(type, counters.withheld, {{"verdict", "withheld"}}),
                       Value(type, counters.undecidable, {{"verdict", "undecidable"}}),
                       Value(type, counters.away, {{"verdict", "away"}}),
                       Value(type, counters.dropped, {{"verdict", "dropped"}})}});
  families.push_back({"efedllm_audit_chunks_total",
                      "Chunks that could be audited, and that the lottery picked",
                      type,
                      {Value(type, counters.claims, {{"state", "claimed"}}),
                       Value(type, counters.picked, {{"state", "picked"}})}});
  families.push_back({"efedllm_audit_replayed_rows_total",
                      "Positions that the coordinator computed again",
                      type,
                      {Value(type, counters.rows_replayed)}});
  families.push_back(
      Gauge("efedllm_audits_waiting", "Picked chunks without a verdict yet", counters.waiting));
}

void AddStandings(const std::vector<NodeStanding>& standings,
                  const std::map<NodeId, TracedNode>& nodes, std::vector<MetricFamily>& families) {
  const MetricType type = MetricType::Gauge;
  MetricFamily honesty{
      "efedllm_node_honesty", "Lower bound of a node's honesty, from audits", type, {}};
  MetricFamily rate{
      "efedllm_node_audit_ratio", "Share of a node's chunks that is audited", type, {}};
  MetricFamily pay{"efedllm_node_pending_pay_micros",
                   "A node's pay that waits for audits and time, in micro-credits",
                   type,
                   {}};
  MetricFamily state{"efedllm_node_trust_state", "1: the node is in this state", type, {}};
  for (const NodeStanding& standing : standings) {
    const auto known = nodes.find(standing.node);
    const std::vector<ClientMetric::Label> labels = {
        {"node", NodeName(standing.node)},
        {"name", known == nodes.end() ? "" : known->second.name}};
    honesty.metric.push_back(Value(type, standing.honesty_bound, labels));
    rate.metric.push_back(
        Value(type, static_cast<double>(standing.audit_rate_ppm) / kWhole, labels));
    pay.metric.push_back(Value(type, standing.pending_pay, labels));
    for (const TrustState of : {TrustState::kProbation, TrustState::kTrusted,
                                TrustState::kQuarantined, TrustState::kEvicted}) {
      std::vector<ClientMetric::Label> with_state = labels;
      with_state.push_back({"state", std::string(TrustStateName(of))});
      state.metric.push_back(
          Value(type, standing.trust.state == of ? 1 : 0, std::move(with_state)));
    }
  }
  for (MetricFamily* family : {&honesty, &rate, &pay, &state}) {
    families.push_back(std::move(*family));
  }
}

}  // namespace

void IncentiveMetrics::Collect(const std::map<NodeId, TracedNode>& nodes,
                               std::vector<MetricFamily>& families) const {
  if (parts_.audits != nullptr) AddAudits(parts_.audits->counters(), families);
  if (parts_.book != nullptr) {
    AddStandings(parts_.book->Standings(), nodes, families);
    families.push_back(Gauge("efedllm_ledger_takes_work",
                             "1: work can be booked; 0: requests are refused until it can",
                             parts_.book->accepting().ok() ? 1 : 0));
  }
  if (parts_.ledger != nullptr) CollectLedger(families);
  if (parts_.heads == nullptr) return;
  const LedgerHeadPublisher::Figures heads = parts_.heads->figures();
  families.push_back(Gauge("efedllm_ledger_signed_entries",
                           "Entries of the ledger under its newest signed head", heads.entries));
  families.push_back({"efedllm_ledger_head_workers",
                      "Attached workers that keep the newest head, or one of another history",
                      MetricType::Gauge,
                      {Value(MetricType::Gauge, heads.holders, {{"state", "kept"}}),
                       Value(MetricType::Gauge, heads.refusers, {{"state", "refused"}})}});
}

void IncentiveMetrics::CollectLedger(std::vector<MetricFamily>& families) const {
  absl::MutexLock lock(&mu_);
  const absl::StatusOr<EscrowFlows> more = parts_.ledger->reader().FlowsAfter(flows_.entries);
  if (more.ok()) {
    flows_.entries = more->entries;
    flows_.pending += more->pending;
    flows_.posted += more->posted;
    flows_.voided += more->voided;
  }
  const MetricType type = MetricType::Counter;
  families.push_back(
      Gauge("efedllm_ledger_entries", "Entries of the ledger, at this scrape", flows_.entries));
  families.push_back({"efedllm_pay_micros_total",
                      "Pay since the ledger began, in micro-credits: that became pending, and of "
                      "it what was posted or voided",
                      type,
                      {Value(type, flows_.pending, {{"state", "pending"}}),
                       Value(type, flows_.posted, {{"state", "posted"}}),
                       Value(type, flows_.voided, {{"state", "voided"}})}});
}

}  // namespace efedllm
