// A decoder layer of the llama kind: RMSNorm, RoPE, grouped-query attention, SwiGLU.
#ifndef EFEDLLM_LAYERS_DECODER_LAYER_H_
#define EFEDLLM_LAYERS_DECODER_LAYER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "layers/compute.h"
#include "layers/kv_cache.h"
#include "layers/linear.h"
#include "layers/packed_matrix.h"
#include "layers/rope.h"
#include "tensor/matrix.h"

namespace efedllm {

// Sane by contract (see ValidateModelConfig): nothing here checks them against each other again.
struct LayerShape {
  uint32_t d_model = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;  // divides heads
  uint32_t head_dim = 0;
  uint32_t d_ffn = 0;
  float norm_epsilon = 0;
};

// Borrowed views of one layer's weights. [outputs, inputs].
struct LayerWeights {
  absl::Span<const float> attention_norm;  // [d_model]
  PackedMatrix query;                      // [heads * head_dim, d_model]
  PackedMatrix key;                        // [kv_heads * head_dim, d_model]
  PackedMatrix value;                      // [kv_heads * head_dim, d_model]
  PackedMatrix output;                     // [d_model, heads * head_dim]
  absl::Span<const float> ffn_norm;        // [d_model]
  PackedMatrix gate;                       // [d_ffn, d_model]
  PackedMatrix up;                         // [d_ffn, d_model]
  PackedMatrix down;                       // [d_model, d_ffn]
};

// Runs layers of one shape, one after the other, with scratch memory that is reused: no allocation
// in a step once the largest has been seen. Not thread-safe; parallel inside.
class DecoderLayer {
 public:
  // rope.dims() <= shape.head_dim. compute is borrowed and outlives this.
  DecoderLayer(const LayerShape& shape, Rope rope, Compute& compute);

  // Once per step, before its layers: what depends on the tokens' positions. kv has been extended
  // by these spans.
  void BeginStep(absl::Span<const KvSpan> spans);

  // Runs one layer over the step's rows, in place. hidden: [sum of the spans' tokens, d_model].
  // layer: the layer's number in kv. A row's result depends on its sequence's tokens alone.
  void Run(const LayerWeights& weights, uint32_t layer, KvCache& kv, MatrixRef hidden);

 private:
  // A view of rows x cols of a scratch buffer, which grows if it must.
  static MatrixRef Shaped(std::vector<float>& buffer, size_t rows, size_t cols);
  void Rotate(MatrixRef x) const;

  const LayerShape shape_;
  const Rope rope_;
  Compute& compute_;
  Linear linear_;

  std::vector<KvSpan> spans_;     // of the step
  std::vector<float> cos_, sin_;  // [rows, rope.dims()]
  std::vector<float> normed_, q_, k_, v_, attended_, projected_, gate_, up_;
};

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_DECODER_LAYER_H_
