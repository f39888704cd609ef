#include "tensor/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/random.h"
#include "tensor/blocks.h"

namespace efedllm {
namespace {

constexpr DType kBlockTypes[] = {DType::kQ8_0, DType::kQ6_K, DType::kQ5_0, DType::kQ4_K,
                                 DType::kQ4_0};

std::vector<float> Normal(size_t n, uint64_t seed) {
  Random random(seed);
  std::vector<float> x(n);
  for (float& value : x) {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += random.Uniform();
    value = static_cast<float>(0.02 * sum);
  }
  return x;
}

std::vector<float> RoundTrip(DType dtype, const std::vector<float>& x,
                             const std::vector<float>& importance = {}) {
  std::vector<uint8_t> bytes(*RowBytes(dtype, x.size()));
  QuantizeRow(dtype, x.data(), x.size(), importance.empty() ? nullptr : importance.data(),
              bytes.data());
  std::vector<float> out(x.size());
  DequantizeRow(dtype, bytes.data(), x.size(), out.data());
  return out;
}

// Of the weighted energy, the share that is lost.
double Loss(const std::vector<float>& x, const std::vector<float>& y,
            const std::vector<float>& importance = {}) {
  double lost = 0, all = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double weight = importance.empty() ? 1 : importance[i];
    lost += weight * (x[i] - y[i]) * (x[i] - y[i]);
    all += weight * x[i] * x[i];
  }
  return lost / all;
}

TEST(Quantize, LosesAsMuchAsTheBitsAllow) {
  const std::vector<float> x = Normal(64 * 256, 1);
  const struct {
    DType dtype;
    double most;
  } all[] = {{DType::kF16, 1e-7},    {DType::kBF16, 5e-6},   {DType::kQ8_0, 3e-5},
             {DType::kQ6_K, 3.5e-4}, {DType::kQ5_0, 1.8e-3}, {DType::kQ4_K, 6e-3},
             {DType::kQ4_0, 7e-3}};
  for (const auto& c : all) {
    const double loss = Loss(x, RoundTrip(c.dtype, x));
    EXPECT_LT(loss, c.most) << std::string(DTypeName(c.dtype));
    EXPECT_GT(loss, c.most / 3) << std::string(DTypeName(c.dtype));
  }
  EXPECT_EQ(RoundTrip(DType::kF32, x), x);
}

TEST(Quantize, IsExactWhereTheFormatIs) {
  for (const DType dtype : kBlockTypes) {
    const std::vector<float> zeros(256, 0.0f);
    EXPECT_EQ(RoundTrip(dtype, zeros), zeros) << std::string(DTypeName(dtype));
  }
  // What was quantized once is a grid that is found again.
  for (const DType dtype : {DType::kQ8_0, DType::kQ5_0, DType::kQ4_0}) {
    std::vector<float> grid(64);
    for (size_t i = 0; i < 64; ++i) grid[i] = 0.25f * (static_cast<float>(i % 16) - 8);
    const std::vector<float> once = RoundTrip(dtype, grid);
    EXPECT_LT(Loss(grid, once), 2e-5) << std::string(DTypeName(dtype));
    EXPECT_LT(Loss(once, RoundTrip(dtype, once)), 1e-7) << std::string(DTypeName(dtype));
  }
}

TEST(Quantize, KeepsWhatIsImportant) {
  const std::vector<float> x = Normal(16 * 256, 2);
  std::vector<float> importance(x.size());
  for (size_t i = 0; i < x.size(); ++i) importance[i] = i % 8 == 0 ? 100.0f : 1.0f;
  for (const DType dtype : {DType::kQ6_K, DType::kQ5_0, DType::kQ4_K, DType::kQ4_0}) {
    EXPECT_LT(Loss(x, RoundTrip(dtype, x, importance), importance),
              0.95 * Loss(x, RoundTrip(dtype, x), importance))
        << std::string(DTypeName(dtype));
  }
}

TEST(Quantize, SurvivesExtremes) {
  for (const DType dtype : kBlockTypes) {
    for (const float scale : {1e-30f, 1e-7f, 1e5f, 1e30f}) {
      std::vector<float> x = Normal(256, 3);
      for (float& value : x) value *= scale;
      for (const float value : RoundTrip(dtype, x)) EXPECT_TRUE(std::isfinite(value));
    }
    std::vector<float> one(256, 0.0f), same(256, -0.7f), positive(256, 0.3f);
    one[77] = 1;
    EXPECT_LT(Loss(one, RoundTrip(dtype, one)), 1e-4) << std::string(DTypeName(dtype));
    EXPECT_LT(Loss(same, RoundTrip(dtype, same)), 1e-4) << std::string(DTypeName(dtype));
    EXPECT_LT(Loss(positive, RoundTrip(dtype, positive)), 1e-4) << std::string(DTypeName(dtype));
    std::vector<float> ignored = Normal(256, 4);
    const std::vector<float> no_weight(256, 0.0f);
    for (const float value : RoundTrip(dtype, ignored, no_weight)) {
      EXPECT_TRUE(std::isfinite(value));
    }
  }
}

}  // namespace
}  // namespace efedllm
