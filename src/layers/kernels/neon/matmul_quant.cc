// The block formats for CPUs without int8 dot products: products are int16, and as many of them are
// added there as are sure to fit.
#include "layers/kernels/neon/matmul_quant.h"

#include "layers/kernels/neon/neon.h"

namespace efedllm::neon {
namespace {

// Quads whose products' sum an int16 holds.
constexpr int QuadsPerSum(int max, int quads) {
  while (quads * 127 * max > 32767) quads /= 2;
  return quads;
}

template <int kMax, int kQuads>
inline int32x4_t Dot(const int8x16_t* w, const int8_t* q) {
  constexpr int kPerSum = QuadsPerSum(kMax, kQuads);
  // Two lanes a row.
  int32x4_t low = vdupq_n_s32(0), high = low;
  for (int i = 0; i < kQuads; i += kPerSum) {
    int16x8_t low16 = vdupq_n_s16(0), high16 = low16;
    for (int j = i; j < i + kPerSum; ++j) {
      int32_t four;
      __builtin_memcpy(&four, q + 4 * j, sizeof four);
      const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
      low16 = vmlal_s8(low16, vget_low_s8(w[j]), vget_low_s8(x));
      high16 = vmlal_high_s8(high16, w[j], x);
    }
    low = vpadalq_s16(low, low16);
    high = vpadalq_s16(high, high16);
  }
  return vpaddq_s32(low, high);
}

}  // namespace

constexpr QuantMatmuls kQuantMatmuls = AllMatmuls(std::make_index_sequence<kQuantFormatCount>());

}  // namespace efedllm::neon
