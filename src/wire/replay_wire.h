// Questions to who computes a stage again, and answers <-> domain types, every field checked.
#ifndef EFEDLLM_WIRE_REPLAY_WIRE_H_
#define EFEDLLM_WIRE_REPLAY_WIRE_H_

#include <grpcpp/support/byte_buffer.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/model_config.h"
#include "cluster/stage_plan.h"
#include "cluster/tensor_spec.h"
#include "common/sha256.h"
#include "tensor/kv_type.h"
#include "tensor/matrix.h"

namespace efedllm {

// A piece of rows, in either direction, has at most so many bytes, or one row.
inline constexpr size_t kReplayPieceBytes = 512 << 10;

// What layers make of one sequence from position 0 on.
struct ReplayQuestion {
  ModelConfig config;
  LayerRange layers;                // of a stage
  std::vector<TensorSpec> tensors;  // of all of them, with chunk digests
  uint32_t through = 0;             // computed is [layers.first, through)
  KvType kv_type = KvType::kF32;
  uint32_t positions = 0;
  uint32_t first_wanted = 0;  // outputs from this position on

  LayerRange computed() const { return {layers.first, through}; }
  friend bool operator==(const ReplayQuestion&, const ReplayQuestion&) = default;
};

struct ReplayInputs {
  uint32_t first_position = 0;
  std::string rows;  // f32, little-endian
  friend bool operator==(const ReplayInputs&, const ReplayInputs&) = default;
};
struct ReplayCommit {
  friend bool operator==(const ReplayCommit&, const ReplayCommit&) = default;
};
struct ReplayReveal {
  uint32_t first_position = 0;
  friend bool operator==(const ReplayReveal&, const ReplayReveal&) = default;
};
struct ReplayRequest {
  uint64_t question = 0;
  std::variant<ReplayQuestion, ReplayInputs, ReplayCommit, ReplayReveal> what;
  friend bool operator==(const ReplayRequest&, const ReplayRequest&) = default;
};

using ReplayNonce = std::array<uint8_t, 32>;
struct ReplayReply {
  std::optional<Sha256Digest> commitment;
  ReplayNonce nonce = {};
  std::vector<Sha256Digest> after_layer;
  std::string rows;  // f32, little-endian
  friend bool operator==(const ReplayReply&, const ReplayReply&) = default;
};

// Of the bytes of all its values.
Sha256Digest DigestOfValues(ConstMatrixRef rows);
// What an answer's node commits itself to before it shows it. rows: DigestOfValues of those wanted.
Sha256Digest ReplayCommitment(const ReplayNonce& nonce, absl::Span<const Sha256Digest> after_layer,
                              const Sha256Digest& rows);

grpc::ByteBuffer ToWire(const ReplayRequest& request);
// InvalidArgument names the field. A question is checked in itself: a model that can be, layers and
// positions of it, and a first wanted position among them. Its tensors' shapes are not, see
// ValidateStageTensors.
absl::StatusOr<ReplayRequest> ReplayRequestFromWire(const grpc::ByteBuffer& bytes);

grpc::ByteBuffer ToWire(const ReplayReply& reply);
// InvalidArgument: digests or a nonce of another size, more than most_layers of them, or more than
// most_row_bytes.
absl::StatusOr<ReplayReply> ReplayReplyFromWire(const grpc::ByteBuffer& bytes, size_t most_layers,
                                                size_t most_row_bytes);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_REPLAY_WIRE_H_
