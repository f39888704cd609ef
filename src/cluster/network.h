// What a hop between any two nodes costs, from the links that were measured and guesses for the
// others.
#ifndef EFEDLLM_CLUSTER_NETWORK_H_
#define EFEDLLM_CLUSTER_NETWORK_H_

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "cluster/layer_cost.h"
#include "cluster/link.h"

namespace efedllm {

// Ends of a hop by number: 0 is the coordinator, i + 1 is nodes[i].
class Network {
 public:
  // Links of nodes that are not there are left out. A pair that was measured in one direction
  // counts as the same in the other. One that was never measured is as slow as the slower of both
  // ends' links to the coordinator; where these are unknown too, as a local network's.
  Network(const std::vector<PlannerNode>& nodes, absl::Span<const LinkSpeed> links);
  // The same where a delay below a millisecond is none, for choices that shall not hang on it.
  Network Coarse() const;

  // Whether they can be neighbours. Otherwise their frames go through the coordinator.
  bool Direct(size_t from, size_t to) const { return At(from, to).direct; }
  // Of a frame, on its way from one to the other. Relayed: both ways together.
  double HopSeconds(size_t from, size_t to, double bytes) const;
  // For so long the frame keeps the link busy; the next one follows then.
  double BusySeconds(size_t from, size_t to, double bytes) const;

 private:
  struct Hop {
    float delay = 0;  // seconds
    float seconds_per_byte = 0;
    bool direct = true;
    bool measured = false;
  };
  Network() = default;
  Hop& At(size_t from, size_t to) { return hops_[from * ends_ + to]; }
  const Hop& At(size_t from, size_t to) const { return hops_[from * ends_ + to]; }
  void Take(size_t from, size_t to, const LinkSpeed& link);

  size_t ends_ = 0;
  float fixed_seconds_ = 0;
  std::vector<Hop> hops_;
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_NETWORK_H_
