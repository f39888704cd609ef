// The network between the nodes: what leaves a node waits behind what it sent before, travels, and
// waits again where it comes in.
#ifndef EFEDLLM_SIMULATOR_SIM_NETWORK_H_
#define EFEDLLM_SIMULATOR_SIM_NETWORK_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/random.h"
#include "simulator/sim_spec.h"

namespace efedllm {

struct LinkUse {
  size_t from = 0;
  size_t to = 0;
  uint64_t messages = 0;
  double bytes = 0;
  double busy_seconds = 0;  // in which its bytes were on their way out
};

// Nodes by their index in the spec; the coordinator is nodes.size(). Times in seconds; calls come
// in the order of their times.
class SimNetwork {
 public:
  explicit SimNetwork(const SimSpec& spec);

  // Bytes that leave `from` at `now`: when the last one is at `to`'s door. FIFO per sender, per
  // medium and per pair; jitter never lets one overtake another of its pair.
  double Send(size_t from, size_t to, double bytes, double now);
  // They are at `to`'s door now: when all of them are inside, behind what came to it before.
  double Receive(size_t from, size_t to, double bytes, double now);

  // What the pair's path is without other traffic.
  SimLink Path(size_t from, size_t to) const;
  bool Reachable(size_t from, size_t to) const;
  std::vector<LinkUse> Uses() const;

 private:
  struct Queue {
    double free_at = 0;
    // Begins at `now` or when it is free; when the last byte is through.
    double Pass(double bytes, double bytes_per_second, double now);
  };
  struct Pair {
    LinkUse use;
    Queue queue;
    double last_arrival = 0;
  };

  const SimNode& Node(size_t i) const {
    return i < spec_.nodes.size() ? spec_.nodes[i] : spec_.coordinator;
  }
  static uint64_t Key(size_t from, size_t to) { return uint64_t{from} << 32 | to; }
  const SimPair* FindPair(size_t from, size_t to) const;
  bool SameHost(size_t from, size_t to) const;

  const SimSpec& spec_;
  Random random_;
  absl::flat_hash_map<uint64_t, const SimPair*> described_;
  absl::flat_hash_map<uint64_t, Pair> pairs_;
  std::vector<Queue> out_, in_, media_;
};

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_SIM_NETWORK_H_
