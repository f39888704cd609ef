// Asks a node to compute again what its layers make of given rows.
#ifndef EFEDLLM_COORDINATOR_STAGE_REPLAYER_H_
#define EFEDLLM_COORDINATOR_STAGE_REPLAYER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "common/sha256.h"
#include "tensor/matrix.h"
#include "wire/cluster_wire.h"

namespace efedllm {

struct StageReplayQuestion {
  // Model, layers, tensors and KV type are asked about; whose stage it is, is not told.
  const Assignment& stage;
  uint32_t through = 0;       // layers [stage.layers.first, through) are computed
  ConstMatrixRef inputs;      // [n, d_model] of positions 0, 1, ... of one sequence; finite
  uint32_t first_wanted = 0;  // outputs from this position on
  // Until the node commits itself, at most.
  absl::Duration patience = absl::InfiniteDuration();
};

struct StageReplayAnswer {
  std::vector<Sha256Digest> after_layer;  // DigestOfValues of all n rows behind each of the layers
  Matrix rows;                            // [n - first_wanted, d_model] behind the last; finite
};

// Thread-safe.
class StageReplayer {
 public:
  virtual ~StageReplayer() = default;
  // The node commits itself to its answer before it hands it out. Blocks, bounded. DataLoss: it did
  // not keep to what it had committed itself to, or what it shows is no answer. Others: there is
  // none, and why, printable: Unavailable, DeadlineExceeded: it can't be reached or has no time;
  // NotFound: it hasn't got these layers, or no memory for them.
  virtual absl::StatusOr<StageReplayAnswer> Ask(NodeId node, const std::string& address,
                                                const StageReplayQuestion& question) = 0;
  // Ends what is under way soon, and all that comes: Cancelled.
  virtual void Cancel() {}
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_STAGE_REPLAYER_H_
