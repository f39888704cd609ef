#include "coordinator/edge_codecs.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "cluster/layer_cost.h"
#include "net/credentials.h"

namespace efedllm {
namespace {

constexpr size_t kEpochsKept = 4;
using LoadCosts = std::array<CodecCosts, kEdgeLoads.size()>;

LoadCosts MeasureCosts(size_t d_model, const BoundaryBasis* basis) {
  LoadCosts costs;
  for (const EdgeLoad load : kEdgeLoads) {
    costs[static_cast<size_t>(load)] = MeasureCodecCosts(d_model, basis, load);
  }
  return costs;
}

std::string HostOf(const std::string& address) { return address.substr(0, address.rfind(':')); }

bool IsLoopbackHost(const std::string& host) {
  return absl::StartsWith(host, "127.") || host == "localhost" || host == "[::1]";
}

// from, to: null for the coordinator.
bool SameMachine(const HopTarget* from, const HopTarget* to) {
  if (from == nullptr || to == nullptr) {
    return IsLoopbackHost(HostOf((from == nullptr ? to : from)->address));
  }
  return HostOf(from->address) == HostOf(to->address);
}

// Measured in this direction, or else in the other. 0: not measured.
double BytesPerSecond(const std::vector<LinkSpeed>& links, NodeId from, NodeId to) {
  double other = 0;
  for (const LinkSpeed& link : links) {
    if (link.from == from && link.to == to && link.bytes_per_second > 0) {
      return link.bytes_per_second;
    }
    if (link.from == to && link.to == from) other = link.bytes_per_second;
  }
  return other;
}

// Of one row through all stages of the chain, by the nodes' profiles and what they took at work.
double RowSeconds(const Chain& chain, const PlannerInput& known, EdgeLoad load) {
  const double rows = TypicalRows(load);
  const LayerSums sums(known.layers);
  double seconds = 0;
  for (const Stage& stage : chain.stages) {
    const auto node =
        std::find_if(known.nodes.begin(), known.nodes.end(),
                     [&](const PlannerNode& candidate) { return candidate.node == stage.node; });
    if (node == known.nodes.end()) continue;
    seconds += sums.Seconds(*node, stage.layers, rows);
  }
  return seconds / rows;
}

}  // namespace

EdgeCodecs::EdgeCodecs(const CodecRequest& request, size_t d_model, WeightServer& weights,
                       std::function<void(const std::vector<uint32_t>& boundaries)> want)
    : request_(request),
      d_model_(d_model),
      weights_(weights),
      want_(std::move(want)),
      costs_(MeasureCosts(d_model, nullptr)) {}

void EdgeCodecs::AddBases(const std::vector<std::shared_ptr<const BoundaryBasis>>& bases) {
  if (bases.empty()) return;
  const LoadCosts costs = MeasureCosts(d_model_, bases.front().get());
  for (const auto& basis : bases) {
    Offered offered{basis, weights_.OfferBasis(basis->boundary, basis->Serialize())};
    absl::MutexLock lock(&mu_);
    costs_ = costs;
    bases_[basis->boundary] = std::move(offered);
  }
}

EdgeCodec EdgeCodecs::ChooseEdge(const EdgeFacts& facts, uint32_t boundary,
                                 const EdgeCodec* present) const {
  EdgeFacts with_basis = facts;
  const auto offered = bases_.find(boundary);
  if (offered != bases_.end()) with_basis.basis = offered->second.basis.get();
  EdgeCodec edge;
  edge.setting = ChooseCodec(request_, with_basis,
                             present == nullptr ? std::nullopt : std::optional(present->setting));
  if (edge.setting.needs_basis()) {
    edge.basis = offered->second.basis;
    edge.spec = offered->second.spec;
  }
  return edge;
}

PlanCodecs EdgeCodecs::Choose(const StagePlan& plan, const std::vector<HopTarget>& targets,
                              const PlannerInput& known, const PlanCodecs* present) const {
  PlanCodecs codecs;
  std::vector<uint32_t> wanted;
  const HopTarget* target = targets.data();
  {
    absl::MutexLock lock(&mu_);
    for (size_t c = 0; c < plan.chains.size(); ++c) {
      const std::vector<Stage>& stages = plan.chains[c].stages;
      EdgeFacts facts;
      facts.d_model = d_model_;
      facts.hops = stages.size() + 1;
      for (const EdgeLoad load : kEdgeLoads) {
        facts.compute_seconds[static_cast<size_t>(load)] =
            RowSeconds(plan.chains[c], known, load) / static_cast<double>(facts.hops);
      }
      facts.costs = costs_;
      std::vector<EdgeCodec>& edges = codecs.emplace_back();
      for (size_t i = 0; i <= stages.size(); ++i) {
        const HopTarget* from = i == 0 ? nullptr : target + i - 1;
        const HopTarget* to = i == stages.size() ? nullptr : target + i;
        facts.same_machine = SameMachine(from, to);
        facts.bytes_per_second =
            BytesPerSecond(known.links, from == nullptr ? kCoordinatorNode : from->node,
                           to == nullptr ? kCoordinatorNode : to->node);
        const uint32_t boundary = i == 0 ? 0 : stages[i - 1].layers.last;
        edges.push_back(
            ChooseEdge(facts, boundary, present == nullptr ? nullptr : &(*present)[c][i]));
        const bool lossless = edges.back().setting.id == CodecId::kF32;
        if (request_.may_use_bases() && !lossless) wanted.push_back(boundary);
      }
      target += stages.size();
    }
  }
  if (!wanted.empty()) want_(wanted);
  return codecs;
}

void EdgeCodecs::Set(Epoch epoch, PlanCodecs codecs) {
  absl::MutexLock lock(&mu_);
  epochs_[epoch] = std::move(codecs);
  while (epochs_.size() > kEpochsKept) epochs_.erase(epochs_.begin());
}

PlanCodecs EdgeCodecs::Of(Epoch epoch) const {
  absl::MutexLock lock(&mu_);
  const auto found = epochs_.find(epoch);
  return found == epochs_.end() ? PlanCodecs() : found->second;
}

}  // namespace efedllm
