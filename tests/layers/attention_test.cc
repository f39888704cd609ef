#include "layers/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "layers/layers_world.h"

namespace efedllm {
namespace {

constexpr size_t kHeads = 6, kKvHeads = 2, kHeadDim = 32, kTokens = 150;
constexpr KvType kTypes[] = {KvType::kF32, KvType::kF16, KvType::kQ8_0};
const AttentionOptions kOptions{.scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim))};

struct World {
  Random random{50};
  Matrix q = GaussianMatrix(random, kTokens, kHeads* kHeadDim);
  Matrix k = GaussianMatrix(random, kTokens, kKvHeads* kHeadDim);
  Matrix v = GaussianMatrix(random, kTokens, kKvHeads* kHeadDim);
};

ConstMatrixRef Rows(const Matrix& m, size_t first, size_t rows) {
  return {m.ref().row(first), rows, m.cols()};
}

KvShape ShapeOf(KvType type) {
  return {.layers = 2, .kv_heads = kKvHeads, .head_dim = kHeadDim, .type = type};
}

// All tokens of the world in one step.
Matrix AttendAll(const World& world, KvType type, const AttentionOptions& options) {
  Compute compute = *Compute::Create(2, "auto");
  auto kv = *KvCache::Create(ShapeOf(type), kTokens);
  const KvSpan span{SequenceId{1}, 0, kTokens};
  EXPECT_TRUE(kv->Extend({span}).ok());
  StoreKv(compute, {span}, 1, world.k.ref(), world.v.ref(), *kv);
  Matrix out(kTokens, kHeads * kHeadDim);
  Attend(compute, {span}, 1, options, world.q.ref(), *kv, out.ref());
  return out;
}

// Token t's head h in double arithmetic.
std::vector<double> Expected(const World& world, const AttentionOptions& options, size_t t,
                             size_t h) {
  const size_t at = h / (kHeads / kKvHeads) * kHeadDim;
  const size_t first = options.window != 0 && t + 1 > options.window ? t + 1 - options.window : 0;
  std::vector<double> out(kHeadDim);
  double sum = 0;
  for (size_t i = first; i <= t; ++i) {
    double score = 0;
    for (size_t d = 0; d < kHeadDim; ++d) {
      score += double{world.q.ref().row(t)[h * kHeadDim + d]} * world.k.ref().row(i)[at + d];
    }
    score *= options.scale;
    if (options.soft_cap != 0) score = options.soft_cap * std::tanh(score / options.soft_cap);
    sum += std::exp(score);
    for (size_t d = 0; d < kHeadDim; ++d) {
      out[d] += std::exp(score) * world.v.ref().row(i)[at + d];
    }
  }
  for (double& x : out) x /= sum;
  return out;
}

void ExpectNear(const World& world, const Matrix& out, const AttentionOptions& options,
                double tolerance) {
  for (size_t t : {0, 1, 2, 3, 62, 63, 64, 65, 66, 67, 127, 128, 129, 149}) {
    for (size_t h = 0; h < kHeads; ++h) {
      const std::vector<double> want = Expected(world, options, t, h);
      for (size_t d = 0; d < kHeadDim; ++d) {
        ASSERT_NEAR(out.ref().row(t)[h * kHeadDim + d], want[d], tolerance)
            << "token " << t << ", head " << h << ", dimension " << d;
      }
    }
  }
}

TEST(Attention, IsSoftmaxOverTheKeysUpToTheToken) {
  const World world;
  ExpectNear(world, AttendAll(world, KvType::kF32, kOptions), kOptions, 2e-6);
}

TEST(Attention, WindowsEndWhereTheySay) {
  const World world;
  for (const uint32_t window : {1, 2, 3, 63, 64, 65, 66, 128, 149, 150, 151}) {
    AttentionOptions options = kOptions;
    options.window = window;
    ExpectNear(world, AttendAll(world, KvType::kF32, options), options, 2e-6);
  }
}

TEST(Attention, SoftCapsBendTheScores) {
  const World world;
  for (const float soft_cap : {0.5f, 2.0f, 50.0f}) {
    AttentionOptions options = kOptions;
    options.soft_cap = soft_cap;
    ExpectNear(world, AttendAll(world, KvType::kF32, options), options, 2e-5);
  }
}

// Values are Gaussian: f16 has 11 bits, q8_0 127 steps up to a block's maximum, around 2.5.
TEST(Attention, SmallerKvIsAsExactAsItsBits) {
  const World world;
  ExpectNear(world, AttendAll(world, KvType::kF16, kOptions), kOptions, 4e-3);
  ExpectNear(world, AttendAll(world, KvType::kQ8_0, kOptions), kOptions, 6e-2);
}

// What the pages give back for one stored key and value, read by attending to it alone.
TEST(Attention, StoredNumbersAreRoundedToTheirType) {
  Random random(51);
  Compute compute = *Compute::Create(0, "auto");
  for (const float scale : {1e-3f, 1.0f, 1000.0f}) {
    Matrix k = GaussianMatrix(random, 1, kKvHeads * kHeadDim), v = k;
    for (float& x : v.ref().span()) x *= scale;
    const Matrix q(1, kHeads * kHeadDim);
    for (const KvType type : kTypes) {
      auto kv = *KvCache::Create(ShapeOf(type), 64);
      const KvSpan span{SequenceId{1}, 0, 1};
      ASSERT_TRUE(kv->Extend({span}).ok());
      StoreKv(compute, {span}, 0, k.ref(), v.ref(), *kv);
      Matrix out(1, kHeads * kHeadDim);
      Attend(compute, {span}, 0, kOptions, q.ref(), *kv, out.ref());
      for (size_t h = 0; h < kHeads; ++h) {
        const float* value = v.row(0) + h / (kHeads / kKvHeads) * kHeadDim;
        float amax = 0;
        for (size_t d = 0; d < kHeadDim; ++d) amax = std::max(amax, std::fabs(value[d]));
        for (size_t d = 0; d < kHeadDim; ++d) {
          // An f16 has 11 bits, or is a multiple of 2^-24.
          const float bound = type == KvType::kF32 ? 0.0f
                              : type == KvType::kF16
                                  ? std::max(std::fabs(value[d]) * 0x1p-11f, 0x1p-25f)
                                  : amax * 0.5f / 127 + std::max(amax * 0x1.01p-11f, 0x1p-18f);
          ASSERT_LE(std::fabs(out.row(0)[h * kHeadDim + d] - value[d]), bound) << KvTypeName(type);
        }
      }
    }
  }
}

// Token by token or in pieces, after other tokens had been there, beside another sequence.
void ExpectChunksChangeNoBit(const World& world, KvType type, const AttentionOptions& options) {
  const Matrix want = AttendAll(world, type, options);
  Compute compute = *Compute::Create(3, "auto");
  auto kv = *KvCache::Create(ShapeOf(type), 1024);
  const KvSpan garbage{SequenceId{1}, 0, 128};
  ASSERT_TRUE(kv->Extend({garbage}).ok());
  StoreKv(compute, {garbage}, 0, Rows(world.v, 20, 128), Rows(world.k, 7, 128), *kv);
  for (uint32_t first = 0, mate = 0; first < kTokens; ++mate) {
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
    Attend(compute, spans, 0, options, q.ref(), *kv, out.ref());
    ASSERT_TRUE(SameBits({out.row(0), out.cols()}, {want.ref().row(mate), want.cols()}));
    ASSERT_TRUE(
        SameBits({out.row(1), tokens * out.cols()}, {want.ref().row(first), tokens * out.cols()}));
    first += tokens;
  }
}

TEST(Attention, ChunksRewindsAndMatesChangeNoBit) {
  const World world;
  for (const KvType type : kTypes) {
    for (const uint32_t window : {0, 1, 50, 64, 100}) {
      AttentionOptions options = kOptions;
      options.window = window;
      options.soft_cap = window == 50 ? 3.0f : 0.0f;
      ExpectChunksChangeNoBit(world, type, options);
    }
  }
}

// The last of 32k tokens, alone and with others: keys are such that one position has all the
// weight.
TEST(Attention, FindsANeedleIn32kPositions) {
  constexpr uint32_t kLong = 32768, kNeedle = 12345;
  Compute compute = *Compute::Create(2, "auto");
  for (const KvType type : kTypes) {
    auto kv = *KvCache::Create({.layers = 1, .kv_heads = 1, .head_dim = 32, .type = type}, kLong);
    Matrix k(kLong, 32), v(kLong, 32);
    for (uint32_t i = 0; i < kLong; ++i) {
      k.row(i)[0] = i == kNeedle ? 40.0f : 0.0f;
      v.row(i)[1] = i == kNeedle ? 1.0f : static_cast<float>(i % 7) - 3.0f;
    }
    const KvSpan all{SequenceId{1}, 0, kLong}, last{SequenceId{1}, kLong - 3, 3};
    ASSERT_TRUE(kv->Extend({all}).ok());
    StoreKv(compute, {all}, 0, k.ref(), v.ref(), *kv);
    Matrix q(3, 4 * 32), out = q;
    for (float& x : q.ref().span()) x = 1;
    AttentionOptions options{.scale = 1};
    Attend(compute, {last}, 0, options, q.ref(), *kv, out.ref());
    for (size_t h = 0; h < 4; ++h) EXPECT_NEAR(out.row(2)[h * 32 + 1], 1, 1e-3);
    options.window = kLong - kNeedle;  // the last token still sees it
    Attend(compute, {last}, 0, options, q.ref(), *kv, out.ref());
    EXPECT_NEAR(out.row(2)[1], 1, 1e-3);
    options.window -= 1;
    Attend(compute, {last}, 0, options, q.ref(), *kv, out.ref());
    EXPECT_NEAR(out.row(2)[1], 0, 1e-3);
    EXPECT_NEAR(out.row(1)[1], 1, 1e-3);
  }
}

}  // namespace
}  // namespace efedllm
