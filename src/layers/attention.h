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

// Writes k and v ([rows, kv_heads * head_dim], k already rotated) into a layer's pages. The cache
// has been extended by these spans.
void StoreKv(Compute& compute, absl::Span<const KvSpan> spans, uint32_t layer, ConstMatrixRef k,
             ConstMatrixRef v, KvCache& kv);

// out = softmax(q · Kᵀ / sqrt(head_dim)) · V per head; a token sees its sequence's positions up to
// its own. q, out: [rows, heads * head_dim], heads a multiple of kv_heads; query head h reads kv
// head h / (heads / kv_heads). out must not overlap q.
void Attend(Compute& compute, absl::Span<const KvSpan> spans, uint32_t layer, ConstMatrixRef q,
            const KvCache& kv, MatrixRef out);

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_ATTENTION_H_
