#include "cluster/network.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"

namespace efedllm {
namespace {

// What a hop costs beside the wire: encoding, system calls, threads that wake up.
constexpr float kFixedSeconds = 60e-6F;
// A local network's, where nothing was measured.
constexpr float kLanDelay = 100e-6F;
constexpr float kLanSecondsPerByte = 1 / 117e6F;

constexpr float kNoticeableDelay = 1e-3F;

}  // namespace

void Network::Take(size_t from, size_t to, const LinkSpeed& link) {
  Hop& hop = At(from, to);
  hop.direct = link.reachable;
  hop.measured = link.reachable;
  hop.delay = static_cast<float>(std::clamp(absl::ToDoubleSeconds(link.rtt) / 2, 0.0, 60.0));
  hop.seconds_per_byte = link.bytes_per_second > 0
                             ? static_cast<float>(1 / std::max(link.bytes_per_second, 1e3))
                             : kLanSecondsPerByte;
}

Network::Network(const std::vector<PlannerNode>& nodes, absl::Span<const LinkSpeed> links)
    : ends_(nodes.size() + 1), fixed_seconds_(kFixedSeconds), hops_(ends_ * ends_) {
  absl::flat_hash_map<NodeId, size_t> numbers;
  numbers[NodeId{0}] = 0;
  for (size_t i = 0; i < nodes.size(); ++i) numbers[nodes[i].node] = i + 1;
  for (const LinkSpeed& link : links) {
    const auto from = numbers.find(link.from);
    const auto to = numbers.find(link.to);
    if (from != numbers.end() && to != numbers.end()) Take(from->second, to->second, link);
  }
  const auto guess = [this](size_t from, size_t to, const Hop& by) {
    Hop& hop = At(from, to);
    if (hop.measured) return;
    hop.delay = by.delay;
    hop.seconds_per_byte = by.seconds_per_byte;
  };
  const Hop lan{kLanDelay, kLanSecondsPerByte, true, false};
  for (size_t i = 1; i < ends_; ++i) {
    guess(0, i, At(i, 0).measured ? At(i, 0) : lan);
    guess(i, 0, At(0, i));
  }
  for (size_t from = 1; from < ends_; ++from) {
    for (size_t to = 1; to < ends_; ++to) {
      if (At(from, to).measured) continue;
      const Hop& up = At(from, 0);
      const Hop& down = At(0, to);
      guess(from, to,
            At(to, from).measured ? At(to, from)
                                  : Hop{std::max(up.delay, down.delay),
                                        std::max(up.seconds_per_byte, down.seconds_per_byte)});
    }
  }
}

Network Network::Coarse() const {
  Network coarse = *this;
  coarse.fixed_seconds_ = 0;
  for (Hop& hop : coarse.hops_) {
    if (hop.delay < kNoticeableDelay) hop.delay = 0;
  }
  return coarse;
}

double Network::HopSeconds(size_t from, size_t to, double bytes) const {
  const Hop& hop = At(from, to);
  if (!hop.direct && from != 0 && to != 0) {
    return HopSeconds(from, 0, bytes) + HopSeconds(0, to, bytes);
  }
  return fixed_seconds_ + hop.delay + bytes * hop.seconds_per_byte;
}

double Network::BusySeconds(size_t from, size_t to, double bytes) const {
  const Hop& hop = At(from, to);
  if (!hop.direct && from != 0 && to != 0) {
    return std::max(BusySeconds(from, 0, bytes), BusySeconds(0, to, bytes));
  }
  return bytes * hop.seconds_per_byte;
}

}  // namespace efedllm
