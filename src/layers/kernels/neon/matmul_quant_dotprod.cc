// The block formats for CPUs with int8 dot products, which add four products to an int32.
#include "layers/kernels/neon/matmul_quant.h"
#include "layers/kernels/neon/neon.h"

namespace efedllm::neon {
namespace {

template <int kMax, int kQuads>
inline int32x4_t Dot(const int8x16_t* w, const int8_t* q) {
  int32x4_t dot = vdupq_n_s32(0);
  for (int i = 0; i < kQuads; i += 4) {
    const int8x16_t x = vld1q_s8(q + 4 * i);
    dot = vdotq_laneq_s32(dot, w[i], x, 0);
    dot = vdotq_laneq_s32(dot, w[i + 1], x, 1);
    dot = vdotq_laneq_s32(dot, w[i + 2], x, 2);
    dot = vdotq_laneq_s32(dot, w[i + 3], x, 3);
  }
  return dot;
}

}  // namespace

constexpr QuantMatmuls kQuantDotprodMatmuls =
    AllMatmuls(std::make_index_sequence<kQuantFormatCount>());

}  // namespace efedllm::neon
