#include "layers/rope.h"

#include "common/check.h"
#include "common/portable_math.h"

namespace efedllm {

Rope::Rope(uint32_t dims, float base, absl::Span<const float> factors) {
  CHECK(dims % 2 == 0);
  CHECK(factors.empty() || factors.size() == dims / 2);
  for (uint32_t i = 0; i < dims / 2; ++i) {
    const double frequency = PortablePow(base, -2.0 * i / dims);
    frequencies_.push_back(factors.empty() ? frequency : frequency / factors[i]);
  }
}

void Rope::Angles(uint32_t position, float* cos, float* sin) const {
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    double s, c;
    PortableSinCos(position * frequencies_[i], &s, &c);
    cos[2 * i] = cos[2 * i + 1] = static_cast<float>(c);
    sin[2 * i] = sin[2 * i + 1] = static_cast<float>(s);
  }
}

}  // namespace efedllm
