#include "app/ctl_explain.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "app/ctl_admin.h"
#include "common/ids.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

nlohmann::json SpeedJson(const v1::PlanSpeed& speed) {
  return {{"single_stream", speed.single_stream()},
          {"all_streams", speed.all_streams()},
          {"prompt", speed.prompt()}};
}

nlohmann::json NodeJson(const v1::PlanNode& node) {
  nlohmann::json measured = nlohmann::json::array();
  for (const v1::PlanMeasured& m : node.measured()) {
    measured.push_back({{"rows", m.rows()}, {"factor", m.factor()}});
  }
  return {{"node", NodeName(NodeId{node.node()})},
          {"name", node.name()},
          {"memory_bytes", node.memory_bytes()},
          {"read_bytes_per_second", node.read_bytes_per_second()},
          {"int8_ops_per_second", node.int8_ops_per_second()},
          {"f32_flops_per_second", node.f32_flops_per_second()},
          {"standby", node.standby()},
          {"why", node.why()},
          {"measured", measured}};
}

nlohmann::json ChainJson(const v1::PlanChain& chain) {
  nlohmann::json stages = nlohmann::json::array();
  for (const v1::PlanStage& stage : chain.stages()) {
    stages.push_back({{"node", NodeName(NodeId{stage.node()})},
                      {"first_layer", stage.first_layer()},
                      {"last_layer", stage.last_layer()},
                      {"relayed", stage.relayed()},
                      {"predicted_millis", stage.predicted_millis()},
                      {"measured_millis", stage.measured_millis()},
                      {"hop_millis", stage.hop_millis()},
                      {"busy", stage.busy()},
                      {"bottleneck", stage.bottleneck()}});
  }
  return {{"stages", stages},
          {"kv_tokens", chain.kv_tokens()},
          {"streams", chain.streams()},
          {"micro_batches", chain.micro_batches()},
          {"rows", chain.rows()},
          {"head_busy", chain.head_busy()},
          {"predicted", SpeedJson(chain.predicted())}};
}

nlohmann::json ReplyJson(const v1::ExplainPlanReply& reply) {
  nlohmann::json json = {
      {"model", reply.model()},         {"epoch", reply.epoch()},
      {"state", reply.state()},         {"reason", reply.reason()},
      {"streams", reply.streams()},     {"predicted", SpeedJson(reply.predicted())},
      {"next", SpeedJson(reply.next())}};
  for (const char* list : {"nodes", "links", "chains", "alternatives", "advice"}) {
    json[list] = nlohmann::json::array();
  }
  for (const v1::PlanNode& node : reply.nodes()) json["nodes"].push_back(NodeJson(node));
  for (const v1::PlanLink& link : reply.links()) {
    json["links"].push_back({{"from", NodeName(NodeId{link.from()})},
                             {"to", NodeName(NodeId{link.to()})},
                             {"rtt_millis", link.rtt_millis()},
                             {"bytes_per_second", link.bytes_per_second()},
                             {"reachable", link.reachable()}});
  }
  for (const v1::PlanChain& chain : reply.chains()) json["chains"].push_back(ChainJson(chain));
  for (const v1::PlanAlternative& other : reply.alternatives()) {
    json["alternatives"].push_back({{"what", other.what()},
                                    {"chains", other.chains()},
                                    {"nodes", other.nodes()},
                                    {"predicted", SpeedJson(other.predicted())}});
  }
  for (const std::string& advice : reply.advice()) json["advice"].push_back(advice);
  return json;
}

using Names = std::map<uint64_t, std::string>;

std::string NameOf(const Names& names, uint64_t node) {
  const auto name = names.find(node);
  return name == names.end() ? NodeName(NodeId{node}) : name->second;
}

void PrintSpeed(const std::string& what, const v1::PlanSpeed& speed) {
  absl::PrintF("  %-40s %10.1f %12.1f %10.0f\n", what, speed.single_stream(), speed.all_streams(),
               speed.prompt());
}

void PrintNodes(const v1::ExplainPlanReply& reply) {
  absl::PrintF("\nnodes\n  %-18s %10s %12s %12s   %s\n", "NAME", "READ GB/s", "INT8 Gop/s",
               "MEMORY", "MEASURED / RATES, BY ROWS");
  for (const v1::PlanNode& node : reply.nodes()) {
    std::string measured;
    for (const v1::PlanMeasured& m : node.measured()) {
      absl::StrAppendFormat(&measured, "%s%.0f: %.2f", measured.empty() ? "" : ", ", m.rows(),
                            m.factor());
    }
    if (measured.empty()) measured = "not yet";
    absl::PrintF("  %-18.18s %10.2f %12.1f %12s   %s\n", node.name(),
                 node.read_bytes_per_second() / 1e9, node.int8_ops_per_second() / 1e9,
                 FormatBytes(node.memory_bytes()), measured);
    if (node.standby()) absl::PrintF("  %-18s standby: %s\n", "", node.why());
  }
}

void PrintLinks(const v1::ExplainPlanReply& reply, const Names& names) {
  constexpr int kMostLinks = 40;
  if (reply.links().empty()) return;
  absl::PrintF("\nlinks\n  %-18s %-18s %10s %12s\n", "FROM", "TO", "RTT ms", "MB/s");
  for (int i = 0; i < std::min(reply.links_size(), kMostLinks); ++i) {
    const v1::PlanLink& link = reply.links(i);
    absl::PrintF("  %-18.18s %-18.18s ", NameOf(names, link.from()), NameOf(names, link.to()));
    if (link.reachable()) {
      absl::PrintF("%10.2f %12.1f\n", link.rtt_millis(), link.bytes_per_second() / 1e6);
    } else {
      absl::PrintF("can't be reached\n");
    }
  }
  if (reply.links_size() > kMostLinks) {
    absl::PrintF("  and %d more (--json has them)\n", reply.links_size() - kMostLinks);
  }
}

void PrintChain(const v1::PlanChain& chain, int number, const Names& names) {
  absl::PrintF("\nchain %d: %d streams in %d micro-batches of %d, KV for %d tokens\n", number,
               chain.streams(), chain.micro_batches(), chain.rows(), chain.kv_tokens());
  absl::PrintF("  %-18s %-10s %9s %12s %12s %6s\n", "NODE", "LAYERS", "HOP ms", "PREDICTED ms",
               "MEASURED ms", "BUSY");
  for (const v1::PlanStage& stage : chain.stages()) {
    const std::string measured =
        stage.measured_millis() > 0 ? absl::StrFormat("%.2f", stage.measured_millis()) : "-";
    absl::PrintF("  %-18.18s %-10s %9.2f %12.2f %12s %5.0f%%%s%s\n", NameOf(names, stage.node()),
                 absl::StrCat("[", stage.first_layer(), ",", stage.last_layer(), ")"),
                 stage.hop_millis(), stage.predicted_millis(), measured, 100 * stage.busy(),
                 stage.bottleneck() ? "  bottleneck" : "",
                 stage.relayed() ? "  relayed by the coordinator to the next" : "");
  }
  absl::PrintF("  %-18s %-10s %9s %12s %12s %5.0f%%\n", "the coordinator", "head", "", "", "",
               100 * chain.head_busy());
}

void PrintReply(const v1::ExplainPlanReply& reply) {
  Names names = {{0, "the coordinator"}};
  for (const v1::PlanNode& node : reply.nodes()) names[node.node()] = node.name();
  absl::PrintF("%s: epoch %d, %s", reply.model(), reply.epoch(), reply.state());
  if (!reply.reason().empty()) absl::PrintF(" (%s)", reply.reason());
  absl::PrintF("\n");
  if (reply.nodes().empty()) {
    absl::PrintF("no workers: the coordinator computes alone, or waits\n");
    return;
  }
  PrintNodes(reply);
  PrintLinks(reply, names);
  for (int i = 0; i < reply.chains_size(); ++i) PrintChain(reply.chains(i), i + 1, names);
  absl::PrintF("\npredicted tokens/s\n  %-40s %10s %12s %10s\n", "", "1 STREAM",
               absl::StrCat(reply.streams(), " STREAMS"), "PROMPT");
  PrintSpeed("this plan", reply.predicted());
  PrintSpeed("a plan made now", reply.next());
  for (const v1::PlanAlternative& other : reply.alternatives()) {
    PrintSpeed(absl::StrCat(other.what(), ": ", other.chains(),
                            other.chains() == 1 ? " chain, " : " chains, ", other.nodes(),
                            other.nodes() == 1 ? " node" : " nodes"),
               other.predicted());
  }
  for (const std::string& advice : reply.advice()) absl::PrintF("\n%s\n", advice);
}

}  // namespace

absl::Status RunExplain(const std::string& state_dir, bool json) {
  ASSIGN_OR_RETURN(const std::unique_ptr<v1::Admin::Stub> stub, ConnectToCoordinator(state_dir));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  v1::ExplainPlanReply reply;
  RETURN_IF_ERROR(FromGrpc(stub->ExplainPlan(&context, v1::ExplainPlanRequest(), &reply)));
  if (json) {
    std::printf("%s\n", ReplyJson(reply).dump(2).c_str());
  } else {
    PrintReply(reply);
  }
  return absl::OkStatus();
}

}  // namespace efedllm
