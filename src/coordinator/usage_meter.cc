#include "coordinator/usage_meter.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace efedllm {

void UsageMeter::Observe(const Batcher::StepInFlight& step) {
  for (const Batcher::Part& part : step.parts) {
    Sequence& sequence = *part.sequence;
    if (sequence.probe) continue;
    const auto prompt = static_cast<uint32_t>(sequence.prompt_tokens());
    Sequence::Charged& charged = sequence.charged;
    KeyUsage used;
    if (charged.tokens == 0) {
      charged.tokens = prompt;
      charged.positions = std::min(part.span.first_position, prompt);
      used.cached_tokens = charged.positions;
    }
    // Behind what is known stand drafts that were wrong.
    const uint32_t end = std::min(part.span.first_position + part.span.tokens, sequence.known());
    if (end > charged.positions) {
      const uint32_t first = charged.positions;
      used.prompt_tokens = std::min(end, prompt) - std::min(first, prompt);
      used.flops = ChunkWorkFlops(config_, {0, config_.layers}, first, end - first);
      charged.positions = end;
    }
    used.generated_tokens = sequence.known() - charged.tokens;
    charged.tokens = sequence.known();
    if (used == KeyUsage()) continue;
    absl::MutexLock lock(&mu_);
    KeyUsage& sum = usage_[sequence.owner()];
    sum = Sum(sum, used);
  }
}

std::map<std::string, KeyUsage> UsageMeter::Take() {
  absl::MutexLock lock(&mu_);
  return std::exchange(usage_, {});
}

}  // namespace efedllm
