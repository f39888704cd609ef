#include "layers/rope.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/check.h"
#include "common/portable_math.h"

namespace efedllm {
namespace {

constexpr double kTwoPi = 6.283185307179586476925286766559;

// The pair (a fraction of one) that makes `turns` turns within the original context.
double PairOfTurns(uint32_t dims, float base, uint32_t original_context, double turns) {
  return dims * PortableLog(original_context / (turns * kTwoPi)) / (2 * PortableLog(base));
}

}  // namespace

std::vector<double> RopeFrequencies(uint32_t dims, float base, absl::Span<const float> factors) {
  CHECK(dims % 2 == 0);
  CHECK(factors.empty() || factors.size() == dims / 2);
  std::vector<double> frequencies;
  for (uint32_t i = 0; i < dims / 2; ++i) {
    const double frequency = PortablePow(base, -2.0 * i / dims);
    frequencies.push_back(factors.empty() ? frequency : frequency / factors[i]);
  }
  return frequencies;
}

std::vector<double> YarnFrequencies(uint32_t dims, float base, const YarnScaling& yarn) {
  std::vector<double> frequencies = RopeFrequencies(dims, base, {});
  const double first =
      std::max(0.0, std::floor(PairOfTurns(dims, base, yarn.original_context, yarn.beta_fast)));
  const double last = std::min(
      dims - 1.0, std::ceil(PairOfTurns(dims, base, yarn.original_context, yarn.beta_slow)));
  for (uint32_t i = 0; i < dims / 2; ++i) {
    const double slow = std::clamp((i - first) / std::max(0.001, last - first), 0.0, 1.0);
    frequencies[i] = frequencies[i] / yarn.factor * slow + frequencies[i] * (1 - slow);
  }
  return frequencies;
}

Rope::Rope(std::vector<double> frequencies, bool halves, float magnitude)
    : frequencies_(std::move(frequencies)), halves_(halves), magnitude_(magnitude) {}

void Rope::Angles(uint32_t position, float* cos, float* sin) const {
  const size_t n = frequencies_.size();
  for (size_t i = 0; i < n; ++i) {
    double s, c;
    PortableSinCos(position * frequencies_[i], &s, &c);
    const size_t a = halves_ ? i : 2 * i, b = halves_ ? i + n : 2 * i + 1;
    cos[a] = cos[b] = static_cast<float>(c * magnitude_);
    sin[a] = sin[b] = static_cast<float>(s * magnitude_);
  }
}

}  // namespace efedllm
