// Who measures which link, and when: one node at a time, so that measurements do not disturb each
// other.
#ifndef EFEDLLM_COORDINATOR_LINK_SURVEY_H_
#define EFEDLLM_COORDINATOR_LINK_SURVEY_H_

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/ids.h"
#include "wire/link_wire.h"

namespace efedllm {

struct LinkSurveyRules {
  // Each node measures its links to the coordinator and to so many others; in a cluster that is not
  // larger these are all.
  size_t max_peers = 15;
  absl::Duration again = absl::Minutes(10);  // while nothing is computed
  // For one target: then the node has forgotten it, or has no pause.
  absl::Duration patience = absl::Seconds(20);
};

// Not thread-safe. Time comes as an argument.
class LinkSurvey {
 public:
  explicit LinkSurvey(const LinkSurveyRules& rules = {}) : rules_(rules) {}

  struct Node {
    NodeId node;
    std::string hop_address;
    absl::Time joined;
  };
  struct Ask {
    NodeId from;
    MeasureLinks measure;
  };

  // What to ask now, if anything. nodes: the attached workers, by id; the coordinator measures and
  // is measured like them. Links of a node that joined since are measured anew at once; others,
  // when idle, now and then.
  std::optional<Ask> Next(const std::vector<Node>& nodes, bool idle, absl::Time now);
  // The answer to a part of the last ask. False: nobody asked for it.
  bool Answered(NodeId from, NodeId to);

 private:
  struct Asked {
    absl::Time when;
    absl::Time joined;  // the later of both ends'
  };

  const LinkSurveyRules rules_;
  std::map<std::pair<NodeId, NodeId>, Asked> asked_;  // of attached nodes alone
  NodeId measuring_;
  std::set<NodeId> awaited_;
  absl::Time give_up_ = absl::InfinitePast();
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_LINK_SURVEY_H_
