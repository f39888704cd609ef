// The control messages between worker and coordinator <-> domain types, every field checked.
#ifndef EFEDLLM_WIRE_CLUSTER_WIRE_H_
#define EFEDLLM_WIRE_CLUSTER_WIRE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/model_config.h"
#include "cluster/node_profile.h"
#include "cluster/stage_plan.h"
#include "cluster/step.h"
#include "cluster/tensor_spec.h"
#include "common/ids.h"
#include "common/signing.h"
#include "efedllm/cluster.pb.h"
#include "svd/codec.h"
#include "tensor/kv_type.h"

namespace efedllm {

// Nodes of different numbers refuse each other.
inline constexpr uint32_t kProtocolVersion = 7;
// Counts up when docs/numerics.md changes a bit of any result.
inline constexpr uint32_t kNumericsId = 2;

struct Hello {
  uint32_t protocol_version = kProtocolVersion;
  std::string engine_version;
  uint32_t numerics_id = kNumericsId;
  std::string name;  // printable, at most 64 bytes
  NodeProfile profile;
  std::string hop_address;    // "HOST:PORT" or ":PORT"
  PublicKey public_key = {};  // of the key that the node is, and signs with
  std::string owner;  // whom the node works for, if its join token leaves that open; printable
};

struct Assignment {
  Epoch epoch;
  LayerRange layers;
  ModelConfig config;
  std::vector<TensorSpec> tensors;  // with all chunk digests
  uint64_t kv_tokens = 0;
  StepLimits limits;
  NodeId upstream;    // 0: the coordinator
  NodeId downstream;  // 0: the coordinator
  std::string downstream_address;
  CodecSetting upstream_codec;  // of what it receives
  CodecSetting codec;           // of what it sends
  // Of the boundaries in front of the stage and behind it (svd/boundary_basis.h); nullopt: none.
  std::optional<TensorSpec> upstream_basis, downstream_basis;
  KvType kv_type = KvType::kF32;
  // The epoch whose KV the stage goes on with, if the node still has the stage of that epoch, or of
  // one that went on with it, for the same layers, model and KV. 0: none.
  Epoch continues;
  uint32_t stage = 0;         // index in its chain
  bool keep_outputs = false;  // what it sends is kept beside the KV, for replays (cluster/step.h)
};

enum class StageState { kFetching, kReady, kFailed };

// Whose fault it is that a stage failed.
enum class StageFault {
  kSelf,
  kUpstream,    // sent what is not a step's frame
  kDownstream,  // can't be reached, or takes nothing
};

struct StageReport {
  Epoch epoch;
  StageState state = StageState::kFetching;
  uint64_t bytes_held = 0;
  uint64_t bytes_total = 0;
  uint64_t bytes_fetched = 0;
  std::string message;  // printable
  bool kept = false;    // ready, with the KV of the epoch that it goes on with
  StageFault fault = StageFault::kSelf;
};

struct StageCounters {
  Epoch epoch;
  uint64_t steps = 0;
  uint64_t tokens = 0;
  uint64_t compute_micros = 0;
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
  uint64_t sequences = 0;
  uint64_t kv_tokens_used = 0;
  uint64_t kv_tokens_total = 0;
};

// ToWire: our own values, valid by construction. FromWire: InvalidArgument names the field.
v1::Hello ToWire(const Hello& hello);
v1::Assignment ToWire(const Assignment& assignment);
v1::StageStatus ToWire(const StageReport& report);
v1::Heartbeat ToWire(const StageCounters& counters);

// FailedPrecondition: another protocol version; says both versions and which side to update.
// (Checked first, so that the rest may change between versions.)
absl::StatusOr<Hello> FromWire(const v1::Hello& message);
absl::StatusOr<Assignment> FromWire(const v1::Assignment& message);
absl::StatusOr<StageReport> FromWire(const v1::StageStatus& message);
absl::StatusOr<StageCounters> FromWire(const v1::Heartbeat& message);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_CLUSTER_WIRE_H_
