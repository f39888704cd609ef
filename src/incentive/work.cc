#include "incentive/work.h"

namespace efedllm {

uint64_t LayerParameters(const ModelConfig& config) {
  const uint64_t d = config.d_model;
  const uint64_t q_out = uint64_t{config.heads} * config.head_dim;
  const uint64_t kv_out = uint64_t{config.kv_heads} * config.head_dim;
  const uint64_t attention = 2 * d * q_out + 2 * d * kv_out;
  if (!config.HasExperts()) return attention + 3 * d * config.d_ffn;
  return attention + d * config.experts + 3 * d * config.d_ffn * config.experts_used;
}

uint64_t StageWorkFlops(const ModelConfig& config, LayerRange layers, const Step& step) {
  __uint128_t tokens = 0;
  __uint128_t positions = 0;  // seen, over all tokens
  for (const SequenceSpan& span : step.spans) {
    const __uint128_t n = span.tokens;
    tokens += n;
    positions += n * span.first_position + n * (n + 1) / 2;
  }
  const __uint128_t per_layer = tokens * 2 * LayerParameters(config) +
                                positions * 4 * (uint64_t{config.heads} * config.head_dim);
  const __uint128_t flops = per_layer * layers.size();
  return flops > UINT64_MAX ? UINT64_MAX : static_cast<uint64_t>(flops);
}

}  // namespace efedllm
