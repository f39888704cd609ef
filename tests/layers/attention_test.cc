#include "layers/attention.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "layers/layers_world.h"

namespace efedllm {
namespace {

constexpr size_t kHeads = 6, kKvHeads = 2, kHeadDim = 20, kTokens = 150;

struct World {
  Random random{50};
  Matrix q = GaussianMatrix(random, kTokens, kHeads* kHeadDim);
  Matrix k = GaussianMatrix(random, kTokens, kKvHeads* kHeadDim);
  Matrix v = GaussianMatrix(random, kTokens, kKvHeads* kHeadDim);
};

const AttentionOptions kOptions{.scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim))};

ConstMatrixRef Rows(const Matrix& m, size_t first, size_t rows) {
  return {m.ref().row(first), rows, m.cols()};
}

TEST(Attention, IsSoftmaxOverTheKeysUpToTheToken) {
  World world;
  Compute compute = *Compute::Create(2, "auto");
  auto kv = *KvCache::Create({.layers = 2, .kv_heads = kKvHeads, .head_dim = kHeadDim}, kTokens);
  const KvSpan span{SequenceId{1}, 0, kTokens};
  ASSERT_TRUE(kv->Extend({span}).ok());
  StoreKv(compute, {span}, 1, world.k.ref(), world.v.ref(), *kv);
  Matrix out(kTokens, kHeads * kHeadDim);
  Attend(compute, {span}, 1, kOptions, world.q.ref(), *kv, out.ref());
  for (size_t t : {0, 1, 63, 64, 149}) {
    for (size_t h = 0; h < kHeads; ++h) {
      const size_t at = h / (kHeads / kKvHeads) * kHeadDim;
      std::vector<double> p(t + 1);
      double sum = 0;
      for (size_t i = 0; i <= t; ++i) {
        double dot = 0;
        for (size_t d = 0; d < kHeadDim; ++d) {
          dot += double{world.q.ref().row(t)[h * kHeadDim + d]} * world.k.ref().row(i)[at + d];
        }
        sum += p[i] = std::exp(dot / std::sqrt(double{kHeadDim}));
      }
      for (size_t d = 0; d < kHeadDim; ++d) {
        double want = 0;
        for (size_t i = 0; i <= t; ++i) want += p[i] / sum * world.v.ref().row(i)[at + d];
        EXPECT_NEAR(out.ref().row(t)[h * kHeadDim + d], want, 2e-6) << t << " " << h << " " << d;
      }
    }
  }
}

TEST(Attention, ChunksRewindsAndMatesChangeNoBit) {
  World world;
  Compute compute = *Compute::Create(3, "auto");
  const KvShape shape{.layers = 1, .kv_heads = kKvHeads, .head_dim = kHeadDim};
  auto whole = *KvCache::Create(shape, kTokens);
  const KvSpan all{SequenceId{1}, 0, kTokens};
  ASSERT_TRUE(whole->Extend({all}).ok());
  StoreKv(compute, {all}, 0, world.k.ref(), world.v.ref(), *whole);
  Matrix want(kTokens, kHeads * kHeadDim);
  Attend(compute, {all}, 0, kOptions, world.q.ref(), *whole, want.ref());

  // Token by token or in pieces, after other tokens had been there, beside another sequence.
  auto kv = *KvCache::Create(shape, 1024);
  const KvSpan garbage{SequenceId{1}, 0, 128};
  ASSERT_TRUE(kv->Extend({garbage}).ok());
  StoreKv(compute, {garbage}, 0, Rows(world.v, 20, 128), Rows(world.k, 7, 128), *kv);
  for (uint32_t first = 0, mate = 0; first < kTokens;) {
    const uint32_t tokens = first < 70 ? 1 : std::min<uint32_t>(37, kTokens - first);
    const KvSpan spans[] = {{SequenceId{2}, mate, 1}, {SequenceId{1}, first, tokens}};
    ASSERT_TRUE(kv->Extend(spans).ok());
    Matrix q(tokens + 1, kHeads * kHeadDim), k(tokens + 1, kKvHeads * kHeadDim), v = k;
    for (uint32_t i = 0; i <= tokens; ++i) {
      const size_t from = i == 0 ? mate : first + i - 1;
      std::copy_n(world.q.ref().row(from), q.cols(), q.row(i));
      std::copy_n(world.k.ref().row(from), k.cols(), k.row(i));
      std::copy_n(world.v.ref().row(from), v.cols(), v.row(i));
    }
    StoreKv(compute, spans, 0, k.ref(), v.ref(), *kv);
    Matrix out(tokens + 1, kHeads * kHeadDim);
    Attend(compute, spans, 0, kOptions, q.ref(), *kv, out.ref());
    EXPECT_TRUE(SameBits({out.row(0), out.cols()}, {want.row(mate), want.cols()}));
    EXPECT_TRUE(
        SameBits({out.row(1), tokens * out.cols()}, {want.row(first), tokens * out.cols()}));
    first += tokens;
    ++mate;
  }
}

}  // namespace
}  // namespace efedllm
