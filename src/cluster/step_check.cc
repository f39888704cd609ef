#include "cluster/step_check.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed step: ", what));
}

bool AllDistinct(absl::InlinedVector<SequenceId, 64>& sequences) {
  std::sort(sequences.begin(), sequences.end());
  return std::adjacent_find(sequences.begin(), sequences.end()) == sequences.end();
}

// Trims, forks and spans may name the same sequences, each of them once.
absl::Status CheckDistinct(const Step& step) {
  absl::InlinedVector<SequenceId, 64> sequences;
  for (const SequenceSpan& span : step.spans) sequences.push_back(span.sequence);
  if (!AllDistinct(sequences)) return Malformed("a sequence stands in it twice");
  sequences.clear();
  for (const SequenceFork& fork : step.forks) sequences.push_back(fork.sequence);
  if (!AllDistinct(sequences)) return Malformed("a sequence is forked to twice");
  sequences.clear();
  for (const SequenceTrim& trim : step.trims) sequences.push_back(trim.sequence);
  return AllDistinct(sequences) ? absl::OkStatus() : Malformed("a sequence is trimmed twice");
}

absl::Status CheckForks(const Step& step, const StepLimits& limits) {
  for (const SequenceFork& fork : step.forks) {
    if (fork.tokens == 0 || fork.tokens > limits.max_position) {
      return Malformed(absl::StrCat("a fork of ", fork.tokens, " tokens; the context has ",
                                    limits.max_position));
    }
    if (fork.sequence == fork.parent) return Malformed("a sequence is its own parent");
  }
  return absl::OkStatus();
}

absl::Status CheckTrims(const Step& step) {
  // A replay goes back over what is kept.
  if (step.trims.empty() || step.spans.empty() || step.replay()) return absl::OkStatus();
  absl::flat_hash_map<SequenceId, uint32_t> begins;
  for (const SequenceSpan& span : step.spans) begins[span.sequence] = span.first_position;
  for (const SequenceTrim& trim : step.trims) {
    const auto begin = begins.find(trim.sequence);
    if (begin == begins.end() || trim.length <= begin->second) continue;
    return Malformed("a sequence is trimmed to more than where it goes on");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStep(const Step& step, const StepLimits& limits) {
  if (step.spans.size() > limits.max_spans || step.trims.size() > limits.max_trims ||
      step.forks.size() > limits.max_forks) {
    return Malformed(absl::StrCat(
        step.spans.size(), " sequences, ", step.trims.size(), " trims and ", step.forks.size(),
        " forks; at most ", limits.max_spans, ", ", limits.max_trims, " and ", limits.max_forks));
  }
  const std::vector<uint32_t>& stages = step.replay_stages;
  if (std::adjacent_find(stages.begin(), stages.end(), std::greater_equal<>()) != stages.end()) {
    return Malformed("the stages of its replay are not in order");
  }
  uint64_t tokens = 0;
  for (const SequenceSpan& span : step.spans) {
    if (span.tokens == 0) return Malformed("a sequence has no tokens");
    if (uint64_t{span.first_position} + span.tokens > limits.max_position) {
      return Malformed(absl::StrCat("positions from ", span.first_position, " on for ", span.tokens,
                                    " tokens; the context has ", limits.max_position));
    }
    tokens += span.tokens;
  }
  if (tokens > limits.max_tokens) {
    return Malformed(absl::StrCat(tokens, " tokens; at most ", limits.max_tokens));
  }
  RETURN_IF_ERROR(CheckDistinct(step));
  RETURN_IF_ERROR(CheckForks(step, limits));
  return CheckTrims(step);
}

}  // namespace efedllm
