#include "svd/trellis.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/random.h"
#include "svd/kernels/codec_kernels.h"

namespace efedllm {
namespace {

std::vector<const CodecKernels*> Tables() {
  std::vector<const CodecKernels*> tables = {&ScalarCodecKernels()};
  for (const CodecKernels* table : {Avx2CodecKernels(), Avx512CodecKernels()}) {
    if (table != nullptr) tables.push_back(table);
  }
  return tables;
}

// Σ (kTrellisUnit · multiple - x)².
uint64_t SquaredError(const std::vector<int32_t>& x, const std::vector<int16_t>& q) {
  TrellisState state;
  uint64_t sum = 0;
  for (size_t j = 0; j < x.size(); ++j) {
    const int64_t difference = int64_t{kTrellisUnit} * state.Multiple(q[j]) - x[j];
    sum += static_cast<uint64_t>(difference * difference);
    state.Pass(q[j]);
  }
  return sum;
}

uint32_t Search(const CodecKernels& kernels, const std::vector<int32_t>& x,
                std::vector<int16_t>& q) {
  std::vector<int32_t> errors(4 * x.size());
  std::vector<uint8_t> choices(x.size());
  q.assign(x.size(), -1);
  return kernels.trellis(x.data(), x.size(), errors.data(), choices.data(), q.data());
}

std::vector<int32_t> RandomInput(Random& random, size_t n, int32_t limit) {
  std::vector<int32_t> x(n);
  for (int32_t& value : x) {
    value = static_cast<int32_t>(random.Below(2 * static_cast<uint64_t>(limit) + 1)) - limit;
  }
  return x;
}

TEST(Trellis, QuantizersHaveEvenAndOddMultiples) {
  TrellisState state;
  EXPECT_EQ(state.quantizer(), 0u);
  EXPECT_EQ(state.Multiple(3), 6);
  EXPECT_EQ(state.Multiple(-3), -6);
  state.Pass(-3);  // the parity of a negative number is that of its magnitude
  EXPECT_EQ(state.quantizer(), 1u);
  EXPECT_EQ(state.Multiple(0), 0);
  EXPECT_EQ(state.Multiple(3), 5);
  EXPECT_EQ(state.Multiple(-3), -5);
}

TEST(Trellis, ThePathIsTheBestOfAll) {
  Random random(1);
  for (int round = 0; round < 200; ++round) {
    const std::vector<int32_t> x = RandomInput(random, 5, 3 * kTrellisUnit);
    // All numbers from -3 to 3.
    uint64_t best = std::numeric_limits<uint64_t>::max();
    for (int code = 0; code < 7 * 7 * 7 * 7 * 7; ++code) {
      std::vector<int16_t> q;
      for (int rest = code, j = 0; j < 5; ++j, rest /= 7) {
        q.push_back(static_cast<int16_t>(rest % 7 - 3));
      }
      best = std::min(best, SquaredError(x, q));
    }
    for (const CodecKernels* table : Tables()) {
      std::vector<int16_t> q;
      EXPECT_EQ(Search(*table, x, q), best) << table->name;
      EXPECT_EQ(SquaredError(x, q), best) << table->name;
    }
  }
}

TEST(Trellis, AllKernelsFindTheSamePath) {
  Random random(2);
  for (const size_t n : {1, 2, 3, 7, 16, 100, 2048, 65536}) {
    for (const int32_t limit : {100, 700, 50'000, kMaxTrellisInput}) {
      std::vector<int32_t> x = RandomInput(random, n, limit);
      if (limit == kMaxTrellisInput) x.front() = limit;
      std::vector<int16_t> expected;
      const uint32_t error = Search(ScalarCodecKernels(), x, expected);
      EXPECT_EQ(error, SquaredError(x, expected));
      for (const CodecKernels* table : Tables()) {
        std::vector<int16_t> q;
        EXPECT_EQ(Search(*table, x, q), error) << table->name << " " << n;
        EXPECT_EQ(q, expected) << table->name << " " << n;
      }
    }
  }
}

TEST(Trellis, LosesLessThanAGridOfItsStep) {
  Random random(3);
  constexpr size_t kValues = 60'000;
  const std::vector<int32_t> x = RandomInput(random, kValues, 100 * kTrellisUnit);
  std::vector<int16_t> q;
  const double error = Search(BestCodecKernels(), x, q);
  // A grid of whole steps has step² / 12.
  const double grid = kValues * std::pow(2 * kTrellisUnit, 2) / 12;
  EXPECT_LT(error, 0.85 * grid);
  EXPECT_GT(error, 0.25 * grid) << "which one of half steps would have";
}

}  // namespace
}  // namespace efedllm
