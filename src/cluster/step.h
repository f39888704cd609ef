// A step: one micro-batch of work for all stages. Pure data; its activations travel beside it.
#ifndef EFEDLLM_CLUSTER_STEP_H_
#define EFEDLLM_CLUSTER_STEP_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/ids.h"

namespace efedllm {

// tokens consecutive tokens of one sequence, the first at position first_position.
struct SequenceSpan {
  SequenceId sequence;
  uint32_t first_position = 0;
  uint32_t tokens = 0;

  friend bool operator==(const SequenceSpan&, const SequenceSpan&) = default;
};

// Valid: every span has tokens; a sequence stands in at most one span; a span begins where the
// sequence's KV ends, or earlier (then the KV from first_position on is dropped first). `released`
// sequences lose their KV before the spans run, and none of them stands in a span. A step may have
// no spans at all and only release.
struct Step {
  Epoch epoch;
  StepId id;
  std::vector<SequenceSpan> spans;
  std::vector<SequenceId> released;

  // Rows of the step's activations: [tokens(), d_model], span after span.
  size_t tokens() const {
    size_t sum = 0;
    for (const SequenceSpan& span : spans) sum += span.tokens;
    return sum;
  }
};

// What bounds a step on the wire and in memory; both ends of a hop agree on it in the assignment.
struct StepLimits {
  uint32_t max_tokens = 512;     // rows in one step
  uint32_t max_spans = 64;       // sequences in one step
  uint32_t max_released = 1024;  // releases in one step
  uint32_t max_position = 0;     // positions are below this: the context length
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_STEP_H_
