#include "simulator/sim_network.h"

#include <algorithm>

namespace efedllm {
namespace {

// Headers of Ethernet, IP, TCP and TLS, to 1448 bytes of payload each.
constexpr double kHeaderShare = 0.065;
// Between processes of one machine.
constexpr double kLocalBytesPerSecond = 4e9;

}  // namespace

SimNetwork::SimNetwork(const SimSpec& spec)
    : spec_(spec),
      random_(spec.seed),
      out_(spec.nodes.size() + 1),
      in_(spec.nodes.size() + 1),
      media_(spec.media.size()) {
  described_.reserve(spec.pairs.size());
  for (const SimPair& pair : spec.pairs) described_[Key(pair.from, pair.to)] = &pair;
}

double SimNetwork::Queue::Pass(double bytes, double bytes_per_second, double now) {
  free_at = std::max(now, free_at) + bytes / bytes_per_second;
  return free_at;
}

const SimPair* SimNetwork::FindPair(size_t from, size_t to) const {
  const auto found = described_.find(Key(from, to));
  return found == described_.end() ? nullptr : found->second;
}

bool SimNetwork::SameHost(size_t from, size_t to) const {
  return Node(from).host.has_value() && Node(from).host == Node(to).host;
}

bool SimNetwork::Reachable(size_t from, size_t to) const {
  const SimPair* pair = FindPair(from, to);
  return pair == nullptr || pair->reachable;
}

SimLink SimNetwork::Path(size_t from, size_t to) const {
  if (const SimPair* pair = FindPair(from, to)) return pair->link;
  if (SameHost(from, to)) return {0, 0, kLocalBytesPerSecond};
  const SimNode& a = Node(from);
  const SimNode& b = Node(to);
  SimLink path;
  path.delay_seconds = a.access.delay_seconds + b.access.delay_seconds;
  path.jitter_seconds = a.access.jitter_seconds + b.access.jitter_seconds;
  path.bytes_per_second = std::min(a.access.bytes_per_second, b.access.bytes_per_second);
  for (const SimNode* node : {&a, &b}) {
    if (!node->medium) continue;
    path.bytes_per_second =
        std::min(path.bytes_per_second, spec_.media[*node->medium].bytes_per_second);
  }
  return path;
}

double SimNetwork::Send(size_t from, size_t to, double bytes, double now) {
  Pair& pair = pairs_[Key(from, to)];
  pair.use.from = from;
  pair.use.to = to;
  ++pair.use.messages;
  pair.use.bytes += bytes;
  const double sent = bytes * (1 + kHeaderShare);
  const SimLink path = Path(from, to);
  pair.use.busy_seconds += sent / path.bytes_per_second;
  double last_byte = pair.queue.Pass(sent, path.bytes_per_second, now);
  if (!SameHost(from, to)) {
    last_byte = std::max(last_byte, out_[from].Pass(sent, Node(from).access.bytes_per_second, now));
    for (const size_t end : {from, to}) {
      const std::optional<size_t> medium = Node(end).medium;
      if (!medium) continue;
      last_byte = std::max(last_byte,
                           media_[*medium].Pass(sent, spec_.media[*medium].bytes_per_second, now));
    }
  }
  const double late = path.jitter_seconds > 0 ? path.jitter_seconds * random_.Uniform() : 0;
  pair.last_arrival = std::max(pair.last_arrival, last_byte + path.delay_seconds + late);
  return pair.last_arrival;
}

double SimNetwork::Receive(size_t from, size_t to, double bytes, double now) {
  if (SameHost(from, to)) return now;
  // Its first byte came so much earlier that an idle door takes no time of its own.
  const double rate = Node(to).access.bytes_per_second;
  const double took = bytes * (1 + kHeaderShare) / rate;
  return std::max(now, in_[to].Pass(bytes * (1 + kHeaderShare), rate, now - took));
}

std::vector<LinkUse> SimNetwork::Uses() const {
  std::vector<LinkUse> uses;
  for (const auto& [key, pair] : pairs_) uses.push_back(pair.use);
  std::sort(uses.begin(), uses.end(), [](const LinkUse& a, const LinkUse& b) {
    return std::pair(a.from, a.to) < std::pair(b.from, b.to);
  });
  return uses;
}

}  // namespace efedllm
