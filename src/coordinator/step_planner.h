// Which tokens go into the next step: a pure function of what the running sequences still have to
// compute.
#ifndef EFEDLLM_COORDINATOR_STEP_PLANNER_H_
#define EFEDLLM_COORDINATOR_STEP_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace efedllm {

// A running sequence: positions [submitted, known) can be computed now.
struct SequenceWork {
  uint32_t known = 0;      // prompt and sampled tokens
  uint32_t submitted = 0;  // of these, in steps already
  uint64_t last_step = 0;  // the step that it was in last; the longest waiting decodes first
};

struct StepRules {
  size_t stages = 1;
  uint32_t max_tokens = 0;  // rows in a step
  uint32_t max_spans = 0;
};

struct PlannedSpan {
  size_t sequence = 0;  // index into `running`
  uint32_t tokens = 0;  // from its `submitted` on

  friend bool operator==(const PlannedSpan&, const PlannedSpan&) = default;
};

// Single tokens (decodes) first, no more than the sequences' share of a stage, so that with P
// stages P micro-batches circulate; then chunks of prompts, the oldest sequence first, while room
// is left. With several stages chunks are shorter, so that one prompt fills them all. running: in
// the order of admission. Empty: nothing can be computed before a result is back.
std::vector<PlannedSpan> PlanStep(absl::Span<const SequenceWork> running, const StepRules& rules);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_STEP_PLANNER_H_
