// Causal grouped-query attention over paged KV, in one pass (online softmax).
#ifndef EFEDLLM_LAYERS_ATTENTION_H_
#define EFEDLLM_LAYERS_ATTENTION_H_

#include <cstdint>

#include "absl/types/span.h"
#include "layers/compute.h"
#include "layers/kv_cache.h"
#include "tensor/matrix.h"

namespace efedllm {

// The rows of a step's matrices are its spans' tokens, span after span.

// Writes k and v ([rows, kv_heads * head_dim], k already rotated) into a layer's pages, rounded to
// their type. The cache has been extended by these spans.
void StoreKv(Compute& compute, absl::Span<const KvSpan> spans, uint32_t layer, ConstMatrixRef k,
             ConstMatrixRef v, KvCache& kv);

struct AttentionOptions {
  float scale = 1;      // of q · k; most models have 1 / sqrt(head_dim)
  uint32_t window = 0;  // a token sees this many positions up to its own; 0: all of them
  float soft_cap = 0;   // scores become soft_cap · tanh(score / soft_cap); 0: they stay
};

// out = softmax(q · Kᵀ · scale) · V per head; a token sees its sequence's positions up to its own.
// q, out: [rows, heads * head_dim], heads a multiple of kv_heads; query head h reads kv head
// h / (heads / kv_heads). out must not overlap q.
void Attend(Compute& compute, absl::Span<const KvSpan> spans, uint32_t layer,
            const AttentionOptions& options, ConstMatrixRef q, const KvCache& kv, MatrixRef out);

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_ATTENTION_H_
