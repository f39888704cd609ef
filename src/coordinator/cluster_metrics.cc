#include "coordinator/cluster_metrics.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/credentials.h"

namespace efedllm {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr char kBusyHelp[] =
    "Share of the last ten seconds in which the stage computed, by chain and place in it";

ClientMetric Value(MetricType type, double value, std::vector<ClientMetric::Label> labels) {
  ClientMetric metric;
  metric.label = std::move(labels);
  (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  return metric;
}

MetricFamily BusyFamily(const std::vector<StageBusy>& stages,
                        const std::map<NodeId, TracedNode>& nodes) {
  MetricFamily family{"efedllm_stage_busy_ratio", kBusyHelp, MetricType::Gauge, {}};
  for (const StageBusy& stage : stages) {
    const auto known = nodes.find(stage.node);
    const bool own = stage.node == kCoordinatorNode;
    const std::string name = known != nodes.end() ? known->second.name : own ? "coordinator" : "";
    family.metric.push_back(Value(MetricType::Gauge, stage.share,
                                  {{"node", NodeName(stage.node)},
                                   {"name", name},
                                   {"chain", absl::StrCat(stage.chain)},
                                   {"stage", absl::StrCat(stage.stage)}}));
  }
  return family;
}

// One value of every node that has one.
MetricFamily NodeFamily(const ClusterStatus& status, const char* name, const char* help,
                        MetricType type, std::optional<double> (*value)(const Member&)) {
  MetricFamily family{name, help, type, {}};
  for (const Member& member : status.members) {
    const std::optional<double> of_member = value(member);
    if (!of_member) continue;
    family.metric.push_back(
        Value(type, *of_member, {{"node", NodeName(member.node)}, {"name", member.hello.name}}));
  }
  return family;
}

void AddReceipts(const ReceiptChecker::Counters& counters, std::vector<MetricFamily>& families) {
  const auto number = [](uint64_t value, std::vector<ClientMetric::Label> labels) {
    return Value(MetricType::Counter, static_cast<double>(value), std::move(labels));
  };
  MetricFamily receipts{"efedllm_receipts_total",
                        "Receipts of workers, by what became of them: taken, or why not",
                        MetricType::Counter,
                        {number(counters.taken, {{"result", "taken"}})}};
  for (size_t i = 0; i < counters.refused.size(); ++i) {
    const std::string why(ReceiptRefusalName(static_cast<ReceiptRefusal>(i)));
    receipts.metric.push_back(number(counters.refused[i], {{"result", why}}));
  }
  families.push_back(std::move(receipts));
  families.push_back(
      {"efedllm_receipt_chunks_total",
       "Chunks that receipts claimed, of which neighbours agreed, and disputed edges",
       MetricType::Counter,
       {number(counters.claims, {{"state", "claimed"}}),
        number(counters.agreed, {{"state", "agreed"}}),
        number(counters.disputes, {{"state", "disputed"}})}});
  families.push_back({"efedllm_receipt_tokens_total",
                      "Tokens that receipts claimed, once for each stage",
                      MetricType::Counter,
                      {number(counters.tokens, {})}});
  families.push_back({"efedllm_receipt_coded_bytes_total",
                      "Coded activations of these tokens, by direction",
                      MetricType::Counter,
                      {number(counters.bytes_in, {{"direction", "in"}}),
                       number(counters.bytes_out, {{"direction", "out"}})}});
}

}  // namespace

std::vector<MetricFamily> ClusterMetrics::Collect() const {
  const ClusterStatus status = status_();
  const auto family = [&status](auto... parts) { return NodeFamily(status, parts...); };
  using Of = std::optional<double>;
  const MetricType counter = MetricType::Counter;
  const MetricType gauge = MetricType::Gauge;
  std::vector<MetricFamily> families = {
      BusyFamily(meters_.Busy(clock_.Now()), TracedNodes(status)),
      family(
          "efedllm_node_attached", "1: the worker is attached; 0: it is gone", gauge,
          +[](const Member& m) -> Of { return m.state() == MemberState::kGone ? 0 : 1; }),
      family(
          "efedllm_node_steps_total", "Steps since the worker joined", counter,
          +[](const Member& m) -> Of { return m.steps; }),
      family(
          "efedllm_node_tokens_total", "Tokens since the worker joined", counter,
          +[](const Member& m) -> Of { return m.tokens; }),
      family(
          "efedllm_node_compute_seconds_total", "Computing since the epoch began", counter,
          +[](const Member& m) -> Of {
            return static_cast<double>(m.counters.compute_micros) / 1e6;
          }),
      family(
          "efedllm_node_received_bytes_total", "Frames received since the epoch began", counter,
          +[](const Member& m) -> Of { return m.counters.bytes_in; }),
      family(
          "efedllm_node_sent_bytes_total", "Frames sent since the epoch began", counter,
          +[](const Member& m) -> Of { return m.counters.bytes_out; }),
      family(
          "efedllm_node_kv_used_tokens", "Token positions in use, in whole KV pages", gauge,
          +[](const Member& m) -> Of { return m.counters.kv_tokens_used; }),
      family(
          "efedllm_node_rtt_seconds", "The least of the last round trips from the coordinator",
          gauge,
          +[](const Member& m) -> Of {
            if (m.pings.empty()) return std::nullopt;
            return absl::ToDoubleSeconds(m.pings.rtt());
          }),
  };
  if (receipts_ != nullptr) AddReceipts(receipts_->counters(), families);
  incentive_.Collect(TracedNodes(status), families);
  return families;
}

std::map<NodeId, TracedNode> TracedNodes(const ClusterStatus& status) {
  std::map<NodeId, TracedNode> nodes;
  for (const Member& member : status.members) {
    TracedNode& node = nodes[member.node];
    node.name = member.hello.name;
    if (!member.pings.empty()) node.clock_offset = member.pings.offset();
  }
  return nodes;
}

}  // namespace efedllm
