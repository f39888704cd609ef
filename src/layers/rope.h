// Rotary position embedding (Su et al., arXiv 2104.09864) of neighbouring pairs, as llama has it.
#ifndef EFEDLLM_LAYERS_ROPE_H_
#define EFEDLLM_LAYERS_ROPE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace efedllm {

// Immutable, thread-safe.
class Rope {
 public:
  // dims: even. Pair i turns by base^(-2i/dims) per position, divided by factors[i] where there are
  // factors (rope_freqs.weight, [dims/2], none zero; empty: none).
  Rope(uint32_t dims, float base, absl::Span<const float> factors);

  uint32_t dims() const { return static_cast<uint32_t>(2 * frequencies_.size()); }

  // cos, sin: [dims]; elements 2i and 2i + 1 both have pair i's value.
  void Angles(uint32_t position, float* cos, float* sin) const;

 private:
  std::vector<double> frequencies_;  // [dims/2], radians per position
};

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_ROPE_H_
