#include "layers/decoder_layer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "layers/elementwise.h"
#include "layers/layers_world.h"

namespace efedllm {
namespace {

constexpr LayerShape kShape{.d_model = 256,
                            .heads = 8,
                            .kv_heads = 2,
                            .head_dim = 32,
                            .attention_scale = 0.177f,
                            .norm_epsilon = 1e-5f,
                            .feed_forward = {.d_model = 256, .d_ffn = 512, .activation = SiluMul}};
constexpr size_t kTokens = 90;

// A random layer, run twice over as layers 0 and 1.
struct World {
  explicit World(DType dtype)
      : attention_norm(kShape.d_model, 1.1f),
        ffn_norm(kShape.d_model, 0.9f),
        query(Weight(dtype, 256, 256)),
        key(Weight(dtype, 64, 256)),
        value(Weight(dtype, 64, 256)),
        output(Weight(dtype, 256, 256)),
        gate(Weight(dtype, 512, 256)),
        up(Weight(dtype, 512, 256)),
        down(Weight(dtype, 256, 512)) {}

  OwnedMatrix Weight(DType dtype, size_t rows, size_t cols) {
    return OwnedMatrix::Random(random, dtype, rows, cols);
  }
  LayerWeights weights() const {
    LayerWeights weights;
    weights.attention_norm = attention_norm;
    weights.query.w = query.view();
    weights.key.w = key.view();
    weights.value.w = value.view();
    weights.output.w = output.view();
    weights.ffn_norm = ffn_norm;
    weights.feed_forward.gate.w = gate.view();
    weights.feed_forward.up.w = up.view();
    weights.feed_forward.down.w = down.view();
    return weights;
  }
  // The outputs of all tokens, fed in pieces of `chunk`.
  Matrix Run(Compute& compute, uint32_t chunk) const {
    auto kv = *KvCache::Create({.layers = 2, .kv_heads = 2, .head_dim = 32}, kTokens);
    DecoderLayer layer(kShape, {Rope(RopeFrequencies(32, 10000, {}), false, 1)}, compute);
    Matrix out(kTokens, kShape.d_model);
    std::copy_n(input.ref().data, input.ref().span().size(), out.ref().data);
    for (uint32_t first = 0; first < kTokens; first += chunk) {
      const uint32_t tokens = std::min<uint32_t>(chunk, kTokens - first);
      const KvSpan span{SequenceId{1}, first, tokens};
      EXPECT_TRUE(kv->Extend({span}).ok());
      layer.BeginStep({span});
      const MatrixRef rows{out.row(first), tokens, kShape.d_model};
      layer.Run(weights(), 0, *kv, rows);
      layer.Run(weights(), 1, *kv, rows);
    }
    return out;
  }

  Random random{60};
  std::vector<float> attention_norm, ffn_norm;
  OwnedMatrix query, key, value, output, gate, up, down;
  Matrix input = GaussianMatrix(random, kTokens, kShape.d_model);
};

TEST(DecoderLayer, ChunksThreadsAndKernelsChangeNoBit) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K}) {
    const World world(dtype);
    Compute scalar = *Compute::Create(0, "scalar");
    const Matrix want = world.Run(scalar, kTokens);
    for (int threads : {0, 1, 2, 5}) {
      for (uint32_t chunk : {1u, 7u, 64u, 90u}) {
        Compute compute = *Compute::Create(threads, "auto");
        EXPECT_TRUE(SameBits(world.Run(compute, chunk).ref().span(), want.ref().span()))
            << DTypeName(dtype) << ", " << threads << " threads, chunks of " << chunk;
      }
    }
  }
}

}  // namespace
}  // namespace efedllm
