#include "coordinator/node_drains.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <functional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "coordinator/state_database.h"

namespace efedllm {
namespace {

constexpr size_t kMostNamed = 5;  // of the nodes that a message lists

std::string NameAndId(const KnownNode& node) {
  return node.name.empty() ? NodeName(node.node)
                           : absl::StrCat(node.name, " (", NodeName(node.node), ")");
}

absl::Status Ambiguous(absl::string_view wanted, const std::vector<KnownNode>& nodes) {
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(nodes.size(), kMostNamed); ++i) {
    names.push_back(NameAndId(nodes[i]));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", wanted, "\" may be ", nodes.size(), " nodes: ", absl::StrJoin(names, ", "),
                   nodes.size() > kMostNamed ? ", ..." : "", "; write more of the id"));
}

}  // namespace

absl::StatusOr<KnownNode> FindNode(absl::string_view wanted, const std::vector<KnownNode>& nodes) {
  if (wanted.empty()) return absl::InvalidArgumentError("which node? write its name or its id");
  const std::string id = absl::AsciiStrToLower(wanted);
  const std::function<bool(const KnownNode&)> fits[] = {
      [&](const KnownNode& n) { return NodeName(n.node) == id; },
      [&](const KnownNode& n) { return n.name == wanted; },
      [&](const KnownNode& n) {
        return absl::StartsWith(NodeName(n.node), id) || absl::StartsWith(n.name, wanted);
      },
  };
  for (const auto& fit : fits) {
    std::vector<KnownNode> found, attached;
    std::copy_if(nodes.begin(), nodes.end(), std::back_inserter(found), fit);
    std::copy_if(found.begin(), found.end(), std::back_inserter(attached),
                 [](const KnownNode& n) { return n.attached; });
    if (found.size() == 1) return found.front();
    if (attached.size() == 1) return attached.front();
    if (!found.empty()) return Ambiguous(wanted, found);
  }
  return absl::NotFoundError(absl::StrCat(
      "no node is called \"", wanted, "\"; `efedllm-ctl status` shows names and ids of the nodes"));
}

absl::Status NodeDrains::Restore() {
  ASSIGN_OR_RETURN(const std::vector<DrainedNode> nodes, ListDrainedNodes(database_));
  absl::MutexLock lock(&mu_);
  for (const DrainedNode& node : nodes) {
    drained_[node.node] = node.since;
    keeper_.Drain(node.node);
    spdlog::info("{} is drained since {}: it gets no layers until `efedllm-ctl undrain`",
                 NodeName(node.node), FormatWallClock(node.since));
  }
  return absl::OkStatus();
}

absl::StatusOr<KnownNode> NodeDrains::Find(absl::string_view wanted) const {
  std::map<NodeId, KnownNode> known;
  ASSIGN_OR_RETURN(const std::vector<EnrolledNode> enrolled, ListEnrolledNodes(database_));
  for (const EnrolledNode& node : enrolled) known[node.node] = {node.node, node.name};
  for (const Member& member : keeper_.Status().members) {
    known[member.node] = {member.node, member.hello.name, member.state() != MemberState::kGone};
  }
  for (const auto& [node, since] : List()) known.insert({node, {node, ""}});
  std::vector<KnownNode> nodes;
  nodes.reserve(known.size());
  for (const auto& [id, node] : known) nodes.push_back(node);
  return FindNode(wanted, nodes);
}

absl::StatusOr<NodeDrains::Change> NodeDrains::Drain(absl::string_view wanted) {
  ASSIGN_OR_RETURN(const KnownNode node, Find(wanted));
  const absl::Time now = clock_.WallNow();
  absl::MutexLock lock(&mu_);
  if (drained_.contains(node.node)) return Change{node, false};
  RETURN_IF_ERROR(MarkDrained(database_, node.node, now));
  drained_[node.node] = absl::FromUnixSeconds(absl::ToUnixSeconds(now));
  keeper_.Drain(node.node);
  spdlog::info("the operator drains {}", NameAndId(node));
  return Change{node, true};
}

absl::StatusOr<NodeDrains::Change> NodeDrains::Undrain(absl::string_view wanted) {
  ASSIGN_OR_RETURN(const KnownNode node, Find(wanted));
  absl::MutexLock lock(&mu_);
  if (!drained_.contains(node.node)) return Change{node, false};
  RETURN_IF_ERROR(UnmarkDrained(database_, node.node));
  drained_.erase(node.node);
  keeper_.Undrain(node.node);
  spdlog::info("the operator puts {} back", NameAndId(node));
  return Change{node, true};
}

std::map<NodeId, absl::Time> NodeDrains::List() const {
  absl::MutexLock lock(&mu_);
  return drained_;
}

}  // namespace efedllm
