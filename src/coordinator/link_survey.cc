#include "coordinator/link_survey.h"

#include <algorithm>

#include "net/credentials.h"

namespace efedllm {

std::optional<LinkSurvey::Ask> LinkSurvey::Next(const std::vector<Node>& nodes, bool idle,
                                                absl::Time now) {
  if (!awaited_.empty() && now < give_up_) return std::nullopt;
  awaited_.clear();
  std::vector<Node> all = {{kCoordinatorNode, "", absl::InfinitePast()}};
  all.insert(all.end(), nodes.begin(), nodes.end());
  std::erase_if(asked_, [&](const auto& asked) {
    const auto is_here = [&](NodeId id) {
      return std::any_of(all.begin(), all.end(), [&](const Node& node) { return node.node == id; });
    };
    return !is_here(asked.first.first) || !is_here(asked.first.second);
  });

  const size_t workers = nodes.size();
  const auto is_due = [&](const Node& from, const Node& to) {
    const auto asked = asked_.find({from.node, to.node});
    if (asked == asked_.end()) return true;
    if (std::max(from.joined, to.joined) != asked->second.joined) return true;
    return idle && now - asked->second.when > rules_.again;
  };
  for (size_t i = 0; i < all.size(); ++i) {
    const Node& from = all[i];
    Ask ask{.from = from.node, .measure = {}};
    const auto consider = [&](const Node& to) {
      if (ask.measure.targets.size() >= kMaxLinkTargets || !is_due(from, to)) return;
      ask.measure.targets.push_back({to.node, to.hop_address});
      asked_[{from.node, to.node}] = {now, std::max(from.joined, to.joined)};
    };
    if (i == 0) {
      for (const Node& worker : nodes) consider(worker);
    } else {
      consider(all[0]);
      // The next ones by id, round the end: so each is measured by as many as it measures.
      for (size_t k = 1; k < workers && k <= rules_.max_peers; ++k) {
        consider(nodes[(i - 1 + k) % workers]);
      }
    }
    if (ask.measure.targets.empty()) continue;
    measuring_ = from.node;
    for (const LinkTarget& target : ask.measure.targets) awaited_.insert(target.node);
    give_up_ = now + rules_.patience * static_cast<int64_t>(awaited_.size());
    return ask;
  }
  return std::nullopt;
}

bool LinkSurvey::Answered(NodeId from, NodeId to) {
  return from == measuring_ && awaited_.erase(to) > 0;
}

}  // namespace efedllm
