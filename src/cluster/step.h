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

// Forgets positions from length on; 0: the whole sequence. No effect if it is shorter or unknown.
struct SequenceTrim {
  SequenceId sequence;
  uint32_t length = 0;

  friend bool operator==(const SequenceTrim&, const SequenceTrim&) = default;
};

// A new sequence, which begins with the KV of the parent's first tokens.
struct SequenceFork {
  SequenceId sequence;  // holds no KV yet
  SequenceId parent;    // holds KV of at least that many tokens
  uint32_t tokens = 0;  // at least one

  friend bool operator==(const SequenceFork&, const SequenceFork&) = default;
};

// forget_others: sequences that no trim names are forgotten with the trims. So an epoch begins that
// goes on with the KV of one before it (see Assignment::continues).
//
// replay_stages: not empty in a replay, which brings back KV that some stages of the chain have
// lost. Only these stages, by their index in ascending order, compute the spans. The others have
// that KV; before a stage that computes they pass on what they sent at these positions (see
// Assignment::keep_outputs), and else no activations at all.
//
// Trims happen first, then forks in their order, then the spans all together. Valid: a sequence is
// trimmed at most once, forked to at most once, and stands in at most one span; every span has
// tokens and begins where the sequence's KV ends, or earlier (then the KV from first_position on is
// dropped first). So a sequence that is trimmed and run is trimmed to at most first_position. A
// step may have no spans at all. One that fails has changed nothing, except that its trims and
// forks may have happened.
struct Step {
  Epoch epoch;
  StepId id;
  std::vector<SequenceTrim> trims;
  std::vector<SequenceFork> forks;
  std::vector<SequenceSpan> spans;
  bool forget_others = false;
  std::vector<uint32_t> replay_stages;

  bool replay() const { return !replay_stages.empty(); }
  // Rows of the step's activations: [tokens(), d_model], span after span.
  size_t tokens() const {
    size_t sum = 0;
    for (const SequenceSpan& span : spans) sum += span.tokens;
    return sum;
  }
};

// What bounds a step on the wire and in memory; both ends of a hop agree on it in the assignment.
struct StepLimits {
  uint32_t max_tokens = 512;  // rows in one step
  uint32_t max_spans = 64;    // sequences in one step
  uint32_t max_trims = 1024;
  uint32_t max_forks = 256;
  uint32_t max_position = 0;  // positions are below this: the context length

  friend bool operator==(const StepLimits&, const StepLimits&) = default;
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_STEP_H_
