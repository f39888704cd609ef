#include "coordinator/step_planner.h"

#include <algorithm>

namespace efedllm {
namespace {

// Below this many rows a chunk reads the weights for too little work.
constexpr uint32_t kMinPromptRows = 32;

}  // namespace

std::vector<PlannedSpan> PlanStep(absl::Span<const SequenceWork> running, const StepRules& rules) {
  std::vector<size_t> decodes;
  std::vector<size_t> prompts;
  for (size_t i = 0; i < running.size(); ++i) {
    const uint32_t ready = running[i].known - running[i].submitted;
    if (ready == 1) decodes.push_back(i);
    if (ready > 1) prompts.push_back(i);
  }
  std::stable_sort(decodes.begin(), decodes.end(),
                   [&](size_t a, size_t b) { return running[a].last_step < running[b].last_step; });

  const size_t stages = std::max<size_t>(rules.stages, 1);
  const size_t share = (running.size() + stages - 1) / stages;
  const size_t most_decodes = std::min<size_t>({share, rules.max_tokens, rules.max_spans});
  std::vector<PlannedSpan> spans;
  for (size_t i = 0; i < decodes.size() && spans.size() < most_decodes; ++i) {
    spans.push_back({decodes[i], 1});
  }

  const auto prompt_rows =
      std::max(kMinPromptRows, static_cast<uint32_t>(rules.max_tokens / stages));
  uint32_t room =
      std::min<uint32_t>(prompt_rows, rules.max_tokens - static_cast<uint32_t>(spans.size()));
  for (size_t i = 0; i < prompts.size() && room > 0 && spans.size() < rules.max_spans; ++i) {
    const SequenceWork& work = running[prompts[i]];
    const uint32_t tokens = std::min(work.known - work.submitted, room);
    spans.push_back({prompts[i], tokens});
    room -= tokens;
  }
  return spans;
}

}  // namespace efedllm
