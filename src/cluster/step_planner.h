// How a chain's work is cut into steps, and which tokens go into the next one: pure functions of
// what the running sequences still have to compute and of what steps were measured to take.
#ifndef EFEDLLM_CLUSTER_STEP_PLANNER_H_
#define EFEDLLM_CLUSTER_STEP_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cluster/stage_times.h"

namespace efedllm {

// What bounds the steps of a chain.
struct StepRules {
  size_t stages = 1;
  size_t max_in_flight = 1;  // at least `stages`
  uint32_t max_tokens = 0;   // rows in a step
  uint32_t max_spans = 0;
};

struct StepDemand {
  size_t decoding = 0;       // sequences whose prompt is behind them, in flight or not
  uint64_t prompt_rows = 0;  // of prompts, not yet submitted
};

struct StepShape {
  size_t in_flight = 1;      // steps on their way at once; one more would only wait
  uint32_t decodes = 1;      // decoding sequences in one step
  uint32_t prompt_rows = 0;  // rows of prompts in one step
};

// Decodes are dealt out to at least min(stages, decoding) micro-batches, so that every stage has
// one, and to more where that hides the links' delay: every further one reads all weights once
// more. The number is that with the shortest round, max(micro-batches x interval, pass).
//
// Prompts go in chunks: alone, of the size with the shortest time for all that is left, (chunks -
// 1) x interval + pass (a flow shop's makespan); beside decodes, of the largest size with which the
// next token comes after at most 2.3 times the decodes' own round.
//
// While nothing is measured: as many micro-batches as stages, and chunks of 64 rows (one stage:
// max_tokens).
StepShape ShapeSteps(const StepDemand& demand, const StepRules& rules, const ChainTimes& times);

// A running sequence: positions [submitted, known) can be computed now.
struct SequenceWork {
  uint32_t known = 0;      // prompt and sampled tokens
  uint32_t submitted = 0;  // of these, in steps already
  uint32_t drafts = 0;     // guesses behind the known ones, to be verified with the last of them
  uint64_t last_step = 0;  // the step that it was in last; the longest waiting decodes first

  bool decodes() const { return known - submitted == 1; }
};

struct PlannedSpan {
  size_t sequence = 0;  // index into `running`
  uint32_t tokens = 0;  // from its `submitted` on, drafts included

  friend bool operator==(const PlannedSpan&, const PlannedSpan&) = default;
};

// Decodes first, the longest waiting ones, with their drafts while there is room; then chunks of
// prompts in the order of `running`. Empty: nothing can be computed before a result is back.
std::vector<PlannedSpan> PlanStep(absl::Span<const SequenceWork> running, const StepRules& rules,
                                  const StepShape& shape);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_STEP_PLANNER_H_
