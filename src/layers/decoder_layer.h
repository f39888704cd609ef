// A decoder layer: RMSNorm, RoPE, grouped-query attention, a gated feed-forward network or experts,
// with what some architectures add (cluster/architecture.h).
#ifndef EFEDLLM_LAYERS_DECODER_LAYER_H_
#define EFEDLLM_LAYERS_DECODER_LAYER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "layers/compute.h"
#include "layers/feed_forward.h"
#include "layers/kv_cache.h"
#include "layers/linear.h"
#include "layers/projection.h"
#include "layers/rope.h"
#include "tensor/matrix.h"

namespace efedllm {

// Sane by contract (see ValidateModelConfig): nothing here checks them against each other again.
struct LayerShape {
  uint32_t d_model = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;  // divides heads
  uint32_t head_dim = 0;
  float attention_scale = 0;
  float attention_soft_cap = 0;  // 0: none
  float norm_epsilon = 0;
  FeedForwardShape feed_forward;
};

// Borrowed views of one layer's weights, [outputs, inputs], and what else differs between layers.
// Norms are [d_model], and empty where the model has none.
struct LayerWeights {
  absl::Span<const float> attention_norm;
  Projection query;                    // [heads * head_dim, d_model]
  Projection key;                      // [kv_heads * head_dim, d_model]
  Projection value;                    // [kv_heads * head_dim, d_model]
  absl::Span<const float> query_norm;  // [head_dim], of each head
  absl::Span<const float> key_norm;    // [head_dim], of each head
  Projection output;                   // [d_model, heads * head_dim]
  absl::Span<const float> post_attention_norm;
  absl::Span<const float> ffn_norm;
  FeedForwardWeights feed_forward;
  absl::Span<const float> post_ffn_norm;

  uint32_t window = 0;  // positions that a token sees, itself included; 0: all
  uint32_t rope = 0;    // which of the layer's ropes turns Q and K
};

// Runs layers of one shape, one after the other, with scratch memory that is reused: no allocation
// in a step once the largest has been seen. Not thread-safe; parallel inside.
class DecoderLayer {
 public:
  // dims() <= shape.head_dim for each rope. compute is borrowed and outlives this.
  DecoderLayer(const LayerShape& shape, std::vector<Rope> ropes, Compute& compute);

  // Once per step, before its layers: what depends on the tokens' positions. kv has been extended
  // by these spans.
  void BeginStep(absl::Span<const KvSpan> spans);

  // Runs one layer over the step's rows, in place. hidden: [sum of the spans' tokens, d_model].
  // layer: the layer's number in kv. A row's result depends on its sequence's tokens alone.
  void Run(const LayerWeights& weights, uint32_t layer, KvCache& kv, MatrixRef hidden);

 private:
  struct Turning {
    Rope rope;
    std::vector<float> cos, sin;  // [rows, rope.dims()]
  };

  void RunAttention(const LayerWeights& weights, uint32_t layer, KvCache& kv, MatrixRef hidden);
  void RunFeedForward(const LayerWeights& weights, MatrixRef hidden);
  void Rotate(const Turning& turning, MatrixRef x) const;
  // Q or K of all heads: bias, norm, position.
  void FinishHeads(const Projection& projection, absl::Span<const float> norm,
                   const Turning& turning, MatrixRef x);
  // hidden += x, which is normed first where there is a norm.
  void AddToResidual(absl::Span<const float> norm, MatrixRef x, MatrixRef hidden);

  const LayerShape shape_;
  Compute& compute_;
  Linear linear_;
  FeedForward feed_forward_;

  std::vector<Turning> turnings_;
  std::vector<KvSpan> spans_;  // of the step
  std::vector<float> normed_, q_, k_, v_, attended_, projected_;
};

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_DECODER_LAYER_H_
