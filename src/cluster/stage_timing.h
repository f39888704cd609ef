// How long a step was where, in one stage: a node's own account of it.
#ifndef EFEDLLM_CLUSTER_STAGE_TIMING_H_
#define EFEDLLM_CLUSTER_STAGE_TIMING_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"
#include "common/ids.h"

namespace efedllm {

// The frame left the node all these times after it was received; the hop to the next node is not in
// it.
struct StageTiming {
  NodeId node;                  // not in frames: the coordinator knows who the stages are
  int64_t received_micros = 0;  // since 1970, by the node's own clock
  uint32_t decode_micros = 0;
  uint32_t queue_micros = 0;  // all waiting inside the node
  uint32_t compute_micros = 0;
  uint32_t encode_micros = 0;
  // How the activations that it received were coded (CodecSetting::number): not in frames, for the
  // coordinator knows that too; and what they took.
  uint32_t received_codec = 0;
  uint32_t received_bytes = 0;

  friend bool operator==(const StageTiming&, const StageTiming&) = default;
};

// As a timing keeps it; at least zero, for the machine's clock may be set while a step is there.
inline uint32_t TimingMicros(absl::Duration duration) {
  return static_cast<uint32_t>(
      std::clamp<int64_t>(absl::ToInt64Microseconds(duration), 0, UINT32_MAX));
}

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_STAGE_TIMING_H_
