#include "coordinator/membership_rules.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace efedllm {
namespace {

bool Contains(const std::vector<NodeId>& nodes, NodeId node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

bool SameNodes(const std::vector<Candidate>& candidates, const std::vector<NodeId>& nodes) {
  return candidates.size() == nodes.size() &&
         std::all_of(candidates.begin(), candidates.end(),
                     [&](const Candidate& c) { return Contains(nodes, c.node); });
}

MembershipMove PlanAt(absl::Time at, absl::Time now) {
  MembershipMove move;
  move.plan = now >= at;
  if (!move.plan) move.look_again = at;
  return move;
}

absl::Time LastJoin(const MembershipView& view) {
  absl::Time last = absl::InfinitePast();
  for (const Candidate& candidate : view.candidates) last = std::max(last, candidate.joined);
  return last;
}

// There is no epoch that could serve.
MembershipMove MoveWithoutPlan(const MembershipView& view, const MembershipRules& rules) {
  const size_t workers = view.candidates.size();
  // A cluster that served once goes on with fewer, as long as the model fits.
  const size_t needed =
      view.served_before ? std::min<size_t>(rules.min_workers, 1) : rules.min_workers;
  if (workers < needed) {
    MembershipMove move;
    move.waiting_for =
        view.served_before
            ? std::string("all workers are gone; waiting for one to come back")
            : absl::StrCat("waiting for workers: ", workers, " of ", rules.min_workers, " joined");
    return move;
  }
  if (view.plan == PlanState::kRefused && SameNodes(view.candidates, view.considered)) {
    return PlanAt(view.refused_at + rules.refused_interval, view.now);
  }
  if (view.now < view.expected_until) {
    const bool all_here = std::all_of(view.expected.begin(), view.expected.end(), [&](NodeId node) {
      return std::any_of(view.candidates.begin(), view.candidates.end(),
                         [&](const Candidate& c) { return c.node == node; });
    });
    MembershipMove move = PlanAt(all_here ? view.now : view.expected_until, view.now);
    if (!all_here) move.waiting_for = "waiting for the workers to come back after a restart";
    return move;
  }
  return PlanAt(std::max({view.not_before, LastJoin(view) + rules.join_settle,
                          view.broken_since + rules.break_settle}),
                view.now);
}

// Undoes gRPC's percent-encoding of the brackets and the zone.
std::string PercentDecoded(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"%5B", "["}, {"%5D", "]"}, {"%25", "%"}});
}

}  // namespace

MembershipMove NextMove(const MembershipView& view, const MembershipRules& rules) {
  if (view.plan != PlanState::kLoading && view.plan != PlanState::kServing) {
    return MoveWithoutPlan(view, rules);
  }
  const bool refused = view.refused && SameNodes(view.candidates, *view.refused);
  if (view.must_move && !refused) {
    return PlanAt(view.not_before, view.now);
  }
  absl::Time first_new = view.better_since;
  for (const Candidate& candidate : view.candidates) {
    if (!Contains(view.considered, candidate.node)) {
      first_new = std::min(first_new, candidate.joined);
    }
  }
  if (first_new == absl::InfiniteFuture()) return {};
  const bool pause = view.plan == PlanState::kLoading || view.active_sequences == 0;
  const absl::Time settled = LastJoin(view) + rules.join_settle;
  const absl::Time at = pause ? settled : std::max(settled, first_new + rules.join_patience);
  return PlanAt(std::max(at, view.not_before), view.now);
}

absl::Duration PlanDelay(int failures, const MembershipRules& rules) {
  if (failures <= 1) return absl::ZeroDuration();
  return std::min(absl::Milliseconds(500) * (1 << std::min(failures - 2, 10)),
                  rules.max_plan_delay);
}

absl::Duration EstimateStep(const Chain& chain, const std::vector<LayerCost>& layers,
                            const std::vector<PlannerNode>& nodes, size_t tokens) {
  // Below these rates a node's own measurement is not believed.
  constexpr double kLeastBytesPerSecond = 1e8;
  constexpr double kLeastOpsPerSecond = 1e8;
  double seconds = 0;
  for (const Stage& stage : chain.stages) {
    double bytes = 0, flops = 0;
    for (uint32_t i = stage.layers.first; i < stage.layers.last; ++i) {
      bytes += static_cast<double>(layers[i].weight_bytes);
      flops += static_cast<double>(layers[i].flops_per_token) * static_cast<double>(tokens);
    }
    const auto node = std::find_if(nodes.begin(), nodes.end(),
                                   [&](const PlannerNode& n) { return n.node == stage.node; });
    const NodeProfile profile = node == nodes.end() ? NodeProfile() : node->profile;
    seconds += std::max(
        bytes / std::max(profile.read_bytes_per_second, kLeastBytesPerSecond),
        flops / std::max(std::min(profile.int8_ops_per_second, profile.f32_flops_per_second),
                         kLeastOpsPerSecond));
  }
  return absl::Seconds(std::min(seconds, 3600.0));
}

absl::StatusOr<std::string> CompleteHopAddress(absl::string_view hop_address,
                                               absl::string_view peer) {
  if (!absl::StartsWith(hop_address, ":")) return std::string(hop_address);
  const std::string decoded = PercentDecoded(peer);
  absl::string_view address = decoded;
  if (!absl::ConsumePrefix(&address, "ipv4:") && !absl::ConsumePrefix(&address, "ipv6:")) {
    return absl::InvalidArgumentError(
        "the worker did not come over IP, so its address must be given in full (--advertise)");
  }
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) {
    return absl::InternalError("the peer's address has no port");
  }
  return absl::StrCat(address.substr(0, colon), hop_address);
}

}  // namespace efedllm
