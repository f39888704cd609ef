#include "cluster/step_timeline.h"

#include <algorithm>

namespace efedllm {
namespace {

absl::Duration Inside(const StageTiming& timing) {
  return absl::Microseconds(int64_t{timing.decode_micros} + timing.queue_micros +
                            timing.compute_micros + timing.encode_micros);
}

}  // namespace

StepTimeline PlaceStep(absl::Time submitted, absl::Time returned,
                       absl::Span<const StageTiming> timings,
                       absl::FunctionRef<absl::Duration(NodeId)> clock_offset) {
  StepTimeline line;
  absl::Duration rest;  // in the stages that are still to come
  for (const StageTiming& timing : timings) rest += Inside(timing);
  absl::Time left = submitted;
  for (const StageTiming& timing : timings) {
    const absl::Time told =
        absl::FromUnixMicros(timing.received_micros) - clock_offset(timing.node);
    StagePassage passage;
    passage.node = timing.node;
    passage.received = std::max(std::min(told, returned - rest), left);
    passage.wire = passage.received - left;
    passage.decode = absl::Microseconds(timing.decode_micros);
    passage.queue = absl::Microseconds(timing.queue_micros);
    passage.compute = absl::Microseconds(timing.compute_micros);
    passage.encode = absl::Microseconds(timing.encode_micros);
    passage.received_codec = timing.received_codec;
    passage.received_bytes = timing.received_bytes;
    rest -= Inside(timing);
    left = passage.left();
    line.stages.push_back(passage);
  }
  line.wire_back = std::max(returned - left, absl::ZeroDuration());
  return line;
}

}  // namespace efedllm
