// Floats as their bits, for comparisons that are exact.
#ifndef EFEDLLM_TESTS_MODEL_BITS_H_
#define EFEDLLM_TESTS_MODEL_BITS_H_

#include <bit>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace efedllm {

inline std::vector<uint32_t> BitsOf(absl::Span<const float> values) {
  std::vector<uint32_t> bits;
  bits.reserve(values.size());
  for (const float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
  return bits;
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_MODEL_BITS_H_
