// What is simulated: a cluster that need not exist, the shape of a model, and the work that comes
// in. Plain data; cluster_json.h reads and bounds it.
#ifndef EFEDLLM_SIMULATOR_SIM_SPEC_H_
#define EFEDLLM_SIMULATOR_SIM_SPEC_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cluster/node_profile.h"
#include "cluster/planner.h"
#include "tensor/kv_type.h"

namespace efedllm {

// The shape of a decoder, as far as it costs time, memory or bytes.
struct SimModel {
  std::string name;
  uint32_t layers = 0;
  uint32_t d_model = 0;
  uint32_t d_ffn = 0;  // of one expert, where there are experts
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t vocab = 0;
  uint32_t experts = 0;  // 0: none
  uint32_t experts_used = 0;
  double bytes_per_weight = 0;
  KvType kv_type = KvType::kF16;
};

// One direction of a node's access to the network, or of a pair's own link.
struct SimLink {
  double delay_seconds = 0;   // one way
  double jitter_seconds = 0;  // each message takes up to so much longer, evenly distributed
  double bytes_per_second = 0;
};

// A step of `rows` rows through all of the model's layers takes so long, attention apart.
struct MeasuredTime {
  uint32_t rows = 0;
  double seconds = 0;
};

struct SimNode {
  std::string name;
  NodeProfile profile;
  // In order of rows, at least two; empty: computed from the profile.
  std::vector<MeasuredTime> times;
  SimLink access;
  std::optional<size_t> medium;  // index into media: the air that it shares
  std::optional<size_t> host;    // index into hosts: the machine whose cores it shares
};

// A radio channel: who sends or receives over it waits for it. Two of its nodes talk through an
// access point, and each message takes it twice.
struct SimMedium {
  std::string name;
  double bytes_per_second = 0;
};

// A machine on which several nodes run: no more than `cores` of their threads compute at once.
struct SimHost {
  std::string name;
  uint32_t cores = 0;
};

// What is known of one ordered pair of nodes beyond their access; nodes.size() is the coordinator.
struct SimPair {
  size_t from = 0;
  size_t to = 0;
  SimLink link;
  bool reachable = true;
};

struct Range {
  uint32_t least = 0;
  uint32_t most = 0;
};

struct SimLoad {
  uint32_t streams = 1;   // at most so many requests at once
  uint32_t requests = 1;  // in all
  Range prompt_tokens;    // drawn evenly
  Range output_tokens;
  // Of a Poisson process. 0: each stream sends its next request when its last one is answered.
  double arrivals_per_second = 0;
};

struct SimRules {
  uint32_t max_sequences = 16;  // the scheduler's, per chain
  uint32_t max_step_tokens = 256;
  uint32_t context = 0;  // positions of one sequence
  // Takes this long on each stage, compute apart: queues, wake-ups. Other steps wait for it.
  double step_overhead_seconds = 0;
  // Encoding, TLS, kernel and decoding of one hop: adds to the latency, no other step waits.
  double hop_overhead_seconds = 0;
  Layout layout = Layout::kAuto;
  // Not empty: no planner, but one chain of the first nodes in their order, with so many layers
  // each.
  std::vector<uint32_t> stage_layers;
  double bytes_per_value = 4;  // of an activation on a hop: the codec
};

struct SimSpec {
  SimModel model;
  SimNode coordinator;
  std::vector<SimNode> nodes;
  std::vector<SimMedium> media;
  std::vector<SimHost> hosts;
  std::vector<SimPair> pairs;
  SimLoad load;
  SimRules rules;
  uint64_t seed = 1;
};

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_SIM_SPEC_H_
