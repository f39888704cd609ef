#include "layers/decoder_layer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "layers/layers_world.h"

namespace efedllm {
namespace {

constexpr LayerShape kShape{
    .d_model = 256, .heads = 8, .kv_heads = 2, .head_dim = 32, .d_ffn = 512, .norm_epsilon = 1e-5f};
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
    return {attention_norm, query.view(), key.view(), value.view(), output.view(),
            ffn_norm,       gate.view(),  up.view(),  down.view()};
  }
  // The outputs of all tokens, fed in pieces of `chunk`.
  Matrix Run(Compute& compute, uint32_t chunk) const {
    auto kv = *KvCache::Create({.layers = 2, .kv_heads = 2, .head_dim = 32}, kTokens);
    DecoderLayer layer(kShape, Rope(32, 10000, {}), compute);
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

TEST(Rope, TurnsPairsByPositionTimesFrequency) {
  const Rope rope(4, 10000, {});
  float cos[4], sin[4];
  rope.Angles(3, cos, sin);
  EXPECT_FLOAT_EQ(cos[0], std::cos(3.0f));
  EXPECT_FLOAT_EQ(sin[1], std::sin(3.0f));
  EXPECT_FLOAT_EQ(cos[2], std::cos(0.03f));
  EXPECT_FLOAT_EQ(sin[3], std::sin(0.03f));
  const float factors[] = {1.0f, 8.0f};
  Rope(4, 10000, factors).Angles(800, cos, sin);
  EXPECT_FLOAT_EQ(cos[0], static_cast<float>(std::cos(800.0)));
  EXPECT_FLOAT_EQ(sin[2], std::sin(1.0f));
}

}  // namespace
}  // namespace efedllm
