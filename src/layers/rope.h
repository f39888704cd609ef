// Rotary position embedding (Su et al., arXiv 2104.09864), and what stretches it to contexts longer
// than those of the training.
#ifndef EFEDLLM_LAYERS_ROPE_H_
#define EFEDLLM_LAYERS_ROPE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace efedllm {

// YaRN (Peng et al., arXiv 2309.00071, section 3.2): pairs that turn often within the original
// context keep their frequency, those that turn seldom are slowed by the factor, with a linear ramp
// between.
struct YarnScaling {
  float factor = 1;
  uint32_t original_context = 0;
  float beta_fast = 32, beta_slow = 1;  // turns
};

// The frequencies of the pairs, in radians per position, f64 and equal to the bit on all machines.
// dims: even. Pair i: base^(-2i/dims), divided by factors[i] where there are factors ([dims/2], all
// positive; empty: none).
std::vector<double> RopeFrequencies(uint32_t dims, float base, absl::Span<const float> factors);
// The same by YaRN.
std::vector<double> YarnFrequencies(uint32_t dims, float base, const YarnScaling& yarn);

// Immutable, thread-safe.
class Rope {
 public:
  // frequencies: of the pairs. halves: pair i is elements i and i + dims/2 of a head; otherwise 2i
  // and 2i + 1. magnitude: cos and sin are multiplied by it.
  Rope(std::vector<double> frequencies, bool halves, float magnitude);

  uint32_t dims() const { return static_cast<uint32_t>(2 * frequencies_.size()); }
  bool halves() const { return halves_; }

  // cos, sin: [dims]; both elements of a pair have its value.
  void Angles(uint32_t position, float* cos, float* sin) const;

 private:
  std::vector<double> frequencies_;
  bool halves_;
  double magnitude_;
};

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_ROPE_H_
