#include "model/step_check.h"

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

absl::Status CheckSpans(const Step& step, const StepLimits& limits) {
  absl::flat_hash_set<SequenceId> seen;
  uint64_t tokens = 0;
  for (const SequenceSpan& span : step.spans) {
    const uint64_t end = uint64_t{span.first_position} + span.tokens;
    if (span.tokens == 0 || end > limits.max_position) {
      return absl::InvalidArgumentError(
          absl::StrCat("sequence ", span.sequence.v, ": positions [", span.first_position, ", ",
                       end, ") are none or beyond the limit of ", limits.max_position));
    }
    if (!seen.insert(span.sequence).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("sequence ", span.sequence.v, " stands twice in a step"));
    }
    tokens += span.tokens;
  }
  if (tokens > limits.max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("a step of ", tokens, " tokens; at most ", limits.max_tokens, " are allowed"));
  }
  return absl::OkStatus();
}

absl::Status CheckTrimsAndForks(const Step& step) {
  absl::flat_hash_map<SequenceId, uint32_t> begins;
  for (const SequenceSpan& span : step.spans) begins[span.sequence] = span.first_position;
  absl::flat_hash_set<SequenceId> seen;
  for (const SequenceTrim& trim : step.trims) {
    if (!seen.insert(trim.sequence).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("sequence ", trim.sequence.v, " is trimmed twice in a step"));
    }
    if (step.replay()) continue;  // it goes back over what is kept
    const auto begin = begins.find(trim.sequence);
    if (begin == begins.end() || trim.length <= begin->second) continue;
    return absl::InvalidArgumentError(absl::StrCat("sequence ", trim.sequence.v, " is trimmed to ",
                                                   trim.length, " positions and run from ",
                                                   begin->second, " on in one step"));
  }
  seen.clear();
  for (const SequenceFork& fork : step.forks) {
    if (fork.tokens > 0 && fork.sequence != fork.parent && seen.insert(fork.sequence).second) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "sequence ", fork.sequence.v, " is forked to twice in a step, or from nothing"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStep(const Step& step, const StepLimits& limits) {
  if (step.spans.size() > limits.max_spans || step.trims.size() > limits.max_trims ||
      step.forks.size() > limits.max_forks) {
    return absl::InvalidArgumentError(
        absl::StrCat("a step of ", step.spans.size(), " spans, ", step.trims.size(), " trims and ",
                     step.forks.size(), " forks; at most ", limits.max_spans, ", ",
                     limits.max_trims, " and ", limits.max_forks, " are allowed"));
  }
  RETURN_IF_ERROR(CheckSpans(step, limits));
  return CheckTrimsAndForks(step);
}

}  // namespace efedllm
