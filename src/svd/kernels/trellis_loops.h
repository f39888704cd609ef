// Both ends of the search for the best path through the trellis (svd/trellis.h); what lies between
// is each table's own. State s is reached from state 2·(s & 1), with a number of parity s >> 1, or
// from the odd state above that one, with one of the other parity; the quantizer was s & 1.
#ifndef EFEDLLM_SVD_KERNELS_TRELLIS_LOOPS_H_
#define EFEDLLM_SVD_KERNELS_TRELLIS_LOOPS_H_

#include <cstddef>
#include <cstdint>

#include "svd/kernels/codec_kernels.h"

namespace efedllm {
// NOLINTNEXTLINE(google-build-namespaces): the linker must not share one ISA's copy with others.
namespace {

// Dearer than any way to all states; with all errors of a row below 2^31.
constexpr int32_t kUnreached = 1 << 20;
constexpr int kSpacingBits = 8;  // of a quantizer's multiples: two half steps
constexpr int32_t kSpacing = 2 * kTrellisUnit;
static_assert(kSpacing == 1 << kSpacingBits);
constexpr int32_t kNearZero = kTrellisUnit * 3 / 2;  // nearer to 0 than to 3

// The two multiples of a quantizer that |x| lies between are those of numbers `lower` and lower
// + 1.
inline int32_t LowerNumber(int32_t magnitude, int32_t quantizer) {
  return (magnitude + quantizer * kTrellisUnit) >> kSpacingBits;
}

// errors[4·j + 2·parity + quantizer] = the square of how far x[j] is from the nearer multiple of
// such a number.
void TrellisErrors(const int32_t* x, size_t n, int32_t* errors) {
  for (size_t j = 0; j < n; ++j) {
    const int32_t magnitude = x[j] < 0 ? -x[j] : x[j];
    for (int32_t quantizer = 0; quantizer < 2; ++quantizer) {
      const int32_t lower = LowerNumber(magnitude, quantizer);
      const int32_t within = (magnitude + quantizer * kTrellisUnit) & (kSpacing - 1);
      // Quantizer 1 has 0 for its first number, one half step below the second, and for an even one
      // in reach of the second.
      const int32_t down = lower == 0 ? magnitude : within;
      const int32_t above = kSpacing - within;
      const int32_t up = quantizer == 1 && lower == 1 && above > magnitude ? magnitude : above;
      const int32_t even = (lower & 1) == 0 ? down : up;
      const int32_t odd = down + up - even;
      errors[4 * j + static_cast<size_t>(quantizer)] = even * even;
      errors[4 * j + 2 + static_cast<size_t>(quantizer)] = odd * odd;
    }
  }
}

// choices[j]: bit s is set if state s behind j is reached from an odd state. cost: of the states at
// the end. The result: the least of them.
uint32_t TrellisTrace(const int32_t* x, size_t n, const int32_t* cost, uint8_t* choices,
                      int16_t* q) {
  uint32_t state = 0;
  for (uint32_t other = 1; other < 4; ++other) state = cost[other] < cost[state] ? other : state;
  const auto least = static_cast<uint32_t>(cost[state]);
  for (size_t j = n; j-- > 0;) {
    const uint32_t odd = static_cast<uint32_t>(choices[j]) >> state & 1;
    choices[j] = static_cast<uint8_t>((state & 1) | ((state >> 1 ^ odd) << 1));
    state = 2 * (state & 1) + odd;
  }
  // choices are quantizers and parities now.
  for (size_t j = 0; j < n; ++j) {
    const int32_t magnitude = x[j] < 0 ? -x[j] : x[j];
    const int32_t lower = LowerNumber(magnitude, choices[j] & 1);
    const int32_t nearest = lower + ((lower ^ choices[j] >> 1) & 1);
    const bool zero = nearest == 2 && (choices[j] & 1) == 1 && magnitude < kNearZero;
    const int32_t number = zero ? 0 : nearest;
    q[j] = static_cast<int16_t>(x[j] < 0 ? -number : number);
  }
  return least;
}

}  // namespace
}  // namespace efedllm

#endif  // EFEDLLM_SVD_KERNELS_TRELLIS_LOOPS_H_
