// The definition of the codecs' loops, and what CPUs without a kernel of their own run.
#include <algorithm>

#include "svd/kernels/codec_kernels.h"
#include "svd/kernels/row_loops.h"
#include "svd/kernels/trellis_loops.h"

namespace efedllm {
namespace {

template <class Entry>
void Project(const ProjectionArgs& args) {
  for (size_t panel = 0; panel < args.panels; ++panel) {
    const Entry* weights =
        static_cast<const Entry*>(args.matrix) + panel * args.panel_pairs * kPanelOutputs * 2;
    for (size_t r = 0; r < args.rows; ++r) {
      const int16_t* x = args.x + r * args.x_stride;
      uint32_t sums[kPanelOutputs] = {};
      for (size_t pair = 0; pair < args.pairs; ++pair) {
        const Entry* w = weights + pair * kPanelOutputs * 2;
        const int32_t first = x[2 * pair], second = x[2 * pair + 1];
        for (size_t o = 0; o < kPanelOutputs; ++o) {
          sums[o] += static_cast<uint32_t>(first * w[2 * o]);
          sums[o] += static_cast<uint32_t>(second * w[2 * o + 1]);
        }
      }
      std::copy_n(sums, kPanelOutputs, args.y + r * args.y_stride + panel * kPanelOutputs);
    }
  }
}

uint32_t Trellis(const int32_t* x, size_t n, int32_t* errors, uint8_t* choices, int16_t* q) {
  TrellisErrors(x, n, errors);
  int32_t cost[4] = {0, kUnreached, kUnreached, kUnreached};
  for (size_t j = 0; j < n; ++j, errors += 4) {
    int32_t next[4];
    uint32_t chosen = 0;
    for (uint32_t state = 0; state < 4; ++state) {
      const size_t from = 2 * (state & 1);
      const int32_t even = cost[from] + errors[state];
      const int32_t odd = cost[from + 1] + errors[state ^ 2];
      next[state] = std::min(even, odd);
      chosen |= (odd < even ? 1u : 0u) << state;
    }
    std::copy_n(next, 4, cost);
    choices[j] = static_cast<uint8_t>(chosen);
  }
  return TrellisTrace(x, n, cost, choices, q);
}

constexpr CodecKernels kScalarTable = {
    "scalar",    Project<int8_t>, Project<int16_t>, Center,       RootMeanSquare, RoundToInt16,
    RoundFloats, RoundSums,       Trellis,          RestoreInt16, RestoreInt32,   SquaredError,
    ToF16,       FromF16,         ToInt8,           FromInt8};

}  // namespace

const CodecKernels& ScalarCodecKernels() { return kScalarTable; }

}  // namespace efedllm
