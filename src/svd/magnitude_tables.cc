#include "svd/magnitude_tables.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "svd/codec_grid.h"
#include "svd/coefficient_coder.h"
#include "svd/kernels/codec_kernels.h"
#include "svd/trellis.h"

namespace efedllm {
namespace {

constexpr size_t kSizes = 4 * kMaxMagnitude;  // of the histograms; what is beyond counts as last
constexpr uint32_t kFirstStep = 16, kLastStep = 80, kStepStride = 8;
// As much as so many observations weighs what a class should look like.
constexpr double kPriorWeight = 100;
// A magnitude that is less likely than this shares the escape's probability.
constexpr double kLeastFrequency = 0.75;

struct Histogram {
  std::vector<double> of = std::vector<double>(kSizes, 0.0);
  double sum = 0;  // of magnitudes
  double count = 0;

  void Add(uint32_t magnitude) {
    ++of[std::min<size_t>(magnitude, kSizes - 1)];
    sum += magnitude;
    ++count;
  }
};
using Histograms = std::array<std::vector<Histogram>, kQuantizers>;  // by quantizer and class

// P(|X| < x), X half normal and half Laplacian, of variance sigma².
double Below(double x, double sigma) {
  return 0.5 * std::erf(x / (sigma * std::sqrt(2.0))) +
         0.5 * (1 - std::exp(-x * std::sqrt(2.0) / sigma));
}

// Adds the prior of class c.
void AddPrior(size_t c, Histogram& histogram) {
  const double sigma = std::exp2((static_cast<double>(c) - 19.5) / 4);
  double below = 0;
  for (size_t m = 0; m < kSizes; ++m) {
    const double next = m + 1 == kSizes ? 1 : Below(static_cast<double>(m) + 0.5, sigma);
    histogram.of[m] += kPriorWeight * (next - below);
    histogram.sum += kPriorWeight * (next - below) * static_cast<double>(m);
    below = next;
  }
  histogram.count += kPriorWeight;
}

MagnitudeTable MakeTable(const Histogram& histogram) {
  const double unit = kProbabilityOne / histogram.count;
  MagnitudeTable table;
  size_t largest = kMaxMagnitude;
  while (largest > 0 && histogram.of[largest] * unit / 2 < kLeastFrequency) --largest;
  table.frequency.resize(largest + 1);
  double tail = 0;
  for (size_t m = largest + 1; m < kSizes; ++m) tail += histogram.of[m] * unit;
  table.escape = static_cast<uint16_t>(std::max(1L, std::lrint(tail)));
  int64_t zero = int64_t{kProbabilityOne} - table.escape;
  for (size_t m = 1; m <= largest; ++m) {
    table.frequency[m] =
        static_cast<uint16_t>(std::max(1L, std::lrint(histogram.of[m] * unit / 2)));
    zero -= int64_t{2} * table.frequency[m];
  }
  // Rounding leaves zero what it leaves; where that is nothing the largest others give.
  while (zero < 1) {
    --*std::max_element(table.frequency.begin() + 1, table.frequency.end());
    zero += 2;
  }
  table.frequency[0] = static_cast<uint16_t>(zero);
  table.mean = static_cast<uint32_t>(
      std::clamp(std::lrint(64 * histogram.sum / histogram.count), 1L, long{64 * kMaxMagnitude}));
  return table;
}

// Runs over the sample at each step, and counts in the class that a coefficient has: with the
// row's activity, or without.
Histograms Count(const Eigen::MatrixXf& coefficients, const CoefficientModel& model,
                 bool with_activity) {
  Histograms histograms;
  for (std::vector<Histogram>& of : histograms) {
    of.resize(kMagnitudeClasses);
    for (size_t c = 0; c < kMagnitudeClasses; ++c) AddPrior(c, of[c]);
  }
  const size_t n = model.log_sigma.size();
  std::vector<int16_t> q((n + kContextBlock - 1) / kContextBlock * kContextBlock);
  const CodecKernels& kernels = BestCodecKernels();
  std::vector<int32_t> half_steps(n), errors(4 * n);
  std::vector<uint8_t> choices(n);
  for (uint32_t step = kFirstStep; step <= kLastStep; step += kStepStride) {
    const ActivityWeights weights(model, step);
    for (Eigen::Index r = 0; r < coefficients.rows(); ++r) {
      const Eigen::VectorXf row = coefficients.row(r);
      kernels.round_floats(row.data(), n, 2 * kTrellisUnit * InverseStepSize(step),
                           half_steps.data());
      kernels.trellis(half_steps.data(), n, errors.data(), choices.data(), q.data());
      ActivityTracker activity;
      TrellisState state;
      for (size_t first = 0; first < n; first += kContextBlock) {
        for (size_t j = first; j < std::min(first + kContextBlock, n); ++j) {
          const MagnitudeClass magnitude =
              ClassOf(weights.log_ratio()[j] + (with_activity ? activity.log_activity() : 0));
          const int32_t half =
              with_activity && magnitude.raw_bits != 0 ? 1 << (magnitude.raw_bits - 1) : 0;
          const int32_t value = with_activity ? q[j] : std::abs(q[j]);
          histograms[state.quantizer()][magnitude.table].Add(
              static_cast<uint32_t>(std::abs((value + half) >> magnitude.raw_bits)));
          state.Pass(q[j]);
        }
        activity.Add(weights.RatioSum(first, q.data() + first));
      }
    }
  }
  return histograms;
}

}  // namespace

void FitMagnitudeTables(const Eigen::MatrixXf& coefficients, CoefficientModel& model) {
  // What is to be expected of a class comes first, as the row's activity is measured by it.
  const Histograms expected = Count(coefficients, model, false);
  for (size_t t = 0; t < kQuantizers; ++t) {
    for (size_t c = 0; c < kMagnitudeClasses; ++c) model.tables[t][c] = MakeTable(expected[t][c]);
  }
  const Histograms given_activity = Count(coefficients, model, true);
  for (size_t t = 0; t < kQuantizers; ++t) {
    for (size_t c = 0; c < kMagnitudeClasses; ++c) {
      const uint32_t mean = model.tables[t][c].mean;
      model.tables[t][c] = MakeTable(given_activity[t][c]);
      model.tables[t][c].mean = mean;
    }
  }
}

}  // namespace efedllm
