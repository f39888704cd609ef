// Row operations: every table equals the scalar one, bit for bit, and the scalar one is right.
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "layers/kernels/kernel_table.h"
#include "layers/layers_world.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

class RowKernels : public testing::TestWithParam<const KernelTable*> {
 protected:
  // op on the same input with both tables, for every length up to 70 and inputs from calm to
  // absurd.
  template <class Op>
  void ExpectSame(const char* name, const Op& op) {
    Random random(22);
    for (size_t n = 1; n < 70; ++n) {
      std::vector<float> x = Gaussians(random, n), w = Gaussians(random, n);
      for (int kind = 0; kind < 4; ++kind) {
        for (size_t i = 0; i < n; ++i) {
          if (kind == 1) x[i] *= 30;
          if (kind == 2) x[i] = Adversarial(random);
          if (kind == 3) w[i] = Adversarial(random);
        }
        std::vector<float> a = x, b = x;
        op(scalar_, a, w);
        op(table_, b, w);
        EXPECT_TRUE(SameBits(a, b)) << name << ", " << n << " values of kind " << kind;
      }
    }
  }

  const KernelTable& scalar_ = ScalarKernels();
  const KernelTable& table_ = *GetParam();
};

INSTANTIATE_TEST_SUITE_P(Isa, RowKernels, testing::ValuesIn(RunnableKernels()),
                         [](const auto& table) { return std::string(table.param->name); });

TEST_P(RowKernels, EqualTheDefinitionForAllLengths) {
  using Row = std::vector<float>;
  ExpectSame("rms_norm", [](const KernelTable& t, Row& x, const Row& w) {
    for (float& v : x) v = std::fabs(v) > 1e15f ? 0.0f : v;  // squares must not overflow
    t.rms_norm(x.data(), w.data(), x.size(), 1e-5f, x.data());
  });
  ExpectSame("add", [](const KernelTable& t, Row& x, const Row& w) {
    for (float& v : x) v = std::fabs(v) > 1e38f ? 1e38f : v;
    t.add(x.data(), w.data(), x.size());
  });
  ExpectSame("add_scaled", [](const KernelTable& t, Row& x, const Row& w) {
    t.add_scaled(x.data(), w.data(), x.size(), 0.37f);
  });
  ExpectSame("silu_mul", [](const KernelTable& t, Row& x, const Row& w) {
    t.silu_mul(x.data(), w.data(), x.size());
  });
  ExpectSame("gelu_mul", [](const KernelTable& t, Row& x, const Row& w) {
    t.gelu_mul(x.data(), w.data(), x.size());
  });
  ExpectSame("soft_cap", [](const KernelTable& t, Row& x, const Row&) {
    t.soft_cap(x.data(), x.size(), 30.0f);
  });
  ExpectSame("exp",
             [](const KernelTable& t, Row& x, const Row&) { t.exp(x.data(), x.size(), x.data()); });
  ExpectSame("to_f16", [](const KernelTable& t, Row& x, const Row&) {
    std::vector<uint16_t> halves(x.size());
    t.to_f16(x.data(), x.size(), halves.data());
    for (size_t i = 0; i < x.size(); ++i) x[i] = halves[i];
  });
}

TEST_P(RowKernels, QuantizeEqualsTheDefinition) {
  const auto quantized = [](const KernelTable& table, const std::vector<float>& x) {
    std::vector<QuantBlock> blocks(x.size() / kQuantValues);
    table.quantize(x.data(), blocks.size(), blocks.data());
    return blocks;
  };
  Random random(21);
  std::vector<float> x = Gaussians(random, 32 * 50);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] *= std::ldexp(1.0f, static_cast<int>(i / 32) * 5 - 125);
  std::fill_n(x.begin() + 64, 32, 0.0f);
  std::fill_n(x.begin() + 96, 32, -0.5f);
  for (int i = 0; i < 32; ++i) x[128 + i] = static_cast<float>(i) - 15.5f;  // ties
  x[128] = 127.0f;
  const std::vector<QuantBlock> want = quantized(scalar_, x), got = quantized(table_, x);
  EXPECT_EQ(std::memcmp(want.data(), got.data(), want.size() * sizeof(QuantBlock)), 0);
  EXPECT_EQ(got[2].d, 0);
  EXPECT_EQ(got[4].q[1], -14);  // -14.5 to even
  for (const QuantBlock& block : got) {
    int sum[2] = {};
    for (int i = 0; i < 32; ++i) {
      EXPECT_GE(block.q[i], -127);
      sum[i / 16] += block.q[i];
    }
    EXPECT_EQ(block.sum[0], sum[0]);
    EXPECT_EQ(block.sum[1], sum[1]);
    EXPECT_EQ(block.offset, -128 * (sum[0] + sum[1]));
  }
}

TEST_P(RowKernels, RopesEqualTheDefinition) {
  Random random(23);
  for (size_t dims = 2; dims <= 80; dims += 2) {
    const size_t heads = 3, head_dim = dims + random.Below(3) * 2;
    const std::vector<float> cos = Gaussians(random, dims), sin = Gaussians(random, dims);
    std::vector<float> a = Gaussians(random, heads * head_dim), b = a;
    scalar_.rope(a.data(), heads, head_dim, dims, cos.data(), sin.data());
    table_.rope(b.data(), heads, head_dim, dims, cos.data(), sin.data());
    EXPECT_TRUE(SameBits(a, b)) << dims;
    scalar_.rope_halves(a.data(), heads, head_dim, dims, cos.data(), sin.data());
    table_.rope_halves(b.data(), heads, head_dim, dims, cos.data(), sin.data());
    EXPECT_TRUE(SameBits(a, b)) << dims << " in halves";
  }
}

TEST_P(RowKernels, RopeOfHalvesTurnsPairsThatLieHalfAHeadApart) {
  const float angle = 0.5f, c = std::cos(angle), s = std::sin(angle);
  float x[] = {1, 2, 3, 4, 9};
  const float cos[] = {c, 1, c, 1}, sin[] = {s, 0, s, 0};
  table_.rope_halves(x, 1, 5, 4, cos, sin);
  EXPECT_NEAR(x[0], 1 * c - 3 * s, 1e-6);
  EXPECT_EQ(x[1], 2);
  EXPECT_NEAR(x[2], 3 * c + 1 * s, 1e-6);
  EXPECT_EQ(x[3], 4);
  EXPECT_EQ(x[4], 9);
}

TEST_P(RowKernels, GeluAndSoftCapAreWhatTheySay) {
  Random random(26);
  for (int i = 0; i < 20000; ++i) {
    const float x = static_cast<float>(random.Uniform() * 40 - 20);
    float gelu = x, capped = x;
    const float one = 1;
    table_.gelu_mul(&gelu, &one, 1);
    table_.soft_cap(&capped, 1, 5.0f);
    const double inner = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * std::pow(x, 3));
    EXPECT_NEAR(gelu, 0.5 * x * (1 + std::tanh(inner)), 5e-7 * std::fmax(1.0f, std::fabs(x))) << x;
    EXPECT_NEAR(capped, 5 * std::tanh(x / 5.0), 1.5e-6) << x;
  }
}

TEST_P(RowKernels, SaturateWhereTheyMust) {
  constexpr float kHuge = std::numeric_limits<float>::max();
  float x[] = {kHuge, -kHuge, INFINITY, -INFINITY, 0.0f};
  table_.soft_cap(x, 5, 30.0f);
  EXPECT_EQ(x[0], 30);
  EXPECT_EQ(x[1], -30);
  EXPECT_EQ(x[2], 30);
  EXPECT_EQ(x[3], -30);
  EXPECT_EQ(x[4], 0);
  float gate[] = {kHuge, -kHuge, 0.0f, 100.0f, -100.0f};
  const float up[] = {1, 1, 1, 1, 1};
  table_.gelu_mul(gate, up, 5);
  EXPECT_EQ(gate[0], kHuge);
  EXPECT_EQ(gate[1], 0);
  EXPECT_EQ(gate[2], 0);
  EXPECT_EQ(gate[3], 100);
  EXPECT_EQ(gate[4], 0);
}

TEST_P(RowKernels, ToF16RoundsToNearestEvenAndStaysFinite) {
  const float x[] = {1.0f + 0x1p-11f, 1.0f + 0x3p-11f, 65504.0f, 65519.9f, 65520.0f,
                     -1e30f,          0x1p-24f,        0x1p-25f, 0x3p-25f, -0.0f};
  const float want[] = {1.0f,      1.0f + 0x1p-9f, 65504.0f, 65504.0f, 65504.0f,
                        -65504.0f, 0x1p-24f,       0.0f,     0x1p-23f, -0.0f};
  uint16_t halves[10];
  table_.to_f16(x, 10, halves);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(F16ToF32(halves[i]), want[i]) << i;
    EXPECT_EQ(std::signbit(F16ToF32(halves[i])), std::signbit(want[i])) << i;
  }
}

}  // namespace
}  // namespace efedllm
