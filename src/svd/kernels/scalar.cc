// The definition of the codecs' loops, and what CPUs without a kernel of their own run.
#include <algorithm>

#include "svd/kernels/codec_kernels.h"
#include "svd/kernels/row_loops.h"

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

constexpr CodecKernels kScalarTable = {
    "scalar",     Project<int8_t>, Project<int16_t>, Center, RootMeanSquare, RoundFloats, RoundSums,
    RestoreInt16, RestoreInt32,    SquaredError,     ToF16,  FromF16,        ToInt8,      FromInt8};

}  // namespace

const CodecKernels& ScalarCodecKernels() { return kScalarTable; }

}  // namespace efedllm
