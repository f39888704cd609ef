// The definition of every kernel: plain loops in the order that docs/numerics.md writes down.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "layers/kernels/constants.h"
#include "layers/kernels/group_layout.h"
#include "layers/kernels/kernel_table.h"
#include "layers/packed_matrix.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

constexpr size_t kRows = kGroupRows;
constexpr size_t kPage = 64;

template <class T>
T Load(const uint8_t* p, size_t i) {
  T v;
  std::memcpy(&v, p + i * sizeof(T), sizeof(T));
  return v;
}

struct F32Weight {
  static float At(const uint8_t* group, size_t i) { return Load<float>(group, i); }
};
struct F16Weight {
  static float At(const uint8_t* group, size_t i) { return F16ToF32(Load<uint16_t>(group, i)); }
};
struct Bf16Weight {
  static float At(const uint8_t* group, size_t i) { return Bf16ToF32(Load<uint16_t>(group, i)); }
};

template <class Weight>
float FloatProduct(const uint8_t* group, size_t r, const MatmulArgs& a, size_t c) {
  const float* x = static_cast<const float*>(a.x) + c * a.x_stride;
  float acc = 0;
  for (size_t k = 0; k < a.k; ++k) acc = std::fma(Weight::At(group, k * kRows + r), x[k], acc);
  return acc;
}

// Code i of block b.
int CodeOf(const QuantFormat& f, const GroupLayout& at, const uint8_t* group, size_t b, size_t r,
           size_t i) {
  const size_t g = i % 16 / 4, j = i % 4, above = i / 16;
  if (f.bits == 8) return group[((b * 8 + i / 4) * kRows + r) * 4 + j] ^ 0x80;
  int code = 0;
  if (HasNibbles(f)) code = group[((b * 4 + g) * kRows + r) * 4 + j] >> (above * 4) & 15;
  if (HasTwoBits(f)) {
    const int pair = group[at.pairs + ((b * 2 + g / 2) * kRows + r) * 4 + j];
    code |= (pair >> (g % 2 * 4 + above * 2) & 3) << TwoBitsAt(f);
  }
  if (HasOneBit(f)) {
    code |= (group[at.bits + (b * kRows + r) * 4 + j] >> (above * 4 + g) & 1) << OneBitAt(f);
  }
  return code;
}

// Of the halves of a block's 32 values.
struct Scales {
  int32_t scale[2];
  int32_t min[2];
};

Scales ScalesOf(const QuantFormat& f, const GroupLayout& at, const uint8_t* group, size_t b,
                size_t r) {
  const uint8_t* scales = group + at.scales;
  const uint8_t* upper = group + at.upper_scales;
  const size_t pair = (b * kRows + r) * 2;
  switch (f.scales) {
    case SubScales::kInt8Pairs:
      return {{Load<int8_t>(scales, pair), Load<int8_t>(scales, pair + 1)}, {}};
    case SubScales::kFourBitsMins:
      return {{scales[pair] & 15, scales[pair + 1] & 15},
              {-(scales[pair] >> 4), -(scales[pair + 1] >> 4)}};
    case SubScales::kSixBitPairs:
    case SubScales::kSixBitsMins: {
      const int low = scales[b * kRows + r], high = upper[b / 2 * kRows + r] >> (b % 2 * 4);
      const int first = (low & 15) | (high & 3) << 4, second = low >> 4 | (high >> 2 & 3) << 4;
      if (f.scales == SubScales::kSixBitPairs) return {{first - 32, second - 32}, {}};
      return {{first, first}, {-second, -second}};
    }
    case SubScales::kSixBits: {
      const int low = scales[b / 2 * kRows + r] >> (b % 2 * 4) & 15;
      const int scale = (low | (upper[b / 4 * kRows + r] >> (b % 4 * 2) & 3) << 4) - 32;
      return {{scale, scale}, {}};
    }
    case SubScales::kNone:
      break;
  }
  return {{1, 1}, {1, 1}};
}

template <QuantFormat kFormat>
float QuantProduct(const uint8_t* group, size_t r, const MatmulArgs& a, size_t c) {
  constexpr QuantFormat f = kFormat;
  const QuantBlock* x = static_cast<const QuantBlock*>(a.x) + c * a.x_stride;
  const size_t blocks = a.k / kQuantValues;
  const GroupLayout at = LayoutOf(f, blocks);
  float acc = 0;
  for (size_t b = 0; b < blocks; ++b) {
    int32_t sum[2] = {};
    for (size_t i = 0; i < kQuantValues; ++i) {
      const int code = CodeOf(f, at, group, b, r, i);
      const int w = f.codebook == Codebook::kNone ? code - f.zero : CodebookValues(f)[code];
      sum[i / 16] += w * x[b].q[i];
    }
    const Scales s = ScalesOf(f, at, group, b, r);
    const int32_t dot = s.scale[0] * sum[0] + s.scale[1] * sum[1];
    const uint8_t* d = group + at.d + b / BlocksPerD(f) * DBytes(f);
    const float d_w = HasE8m0(f) ? HalfE8m0ToF32(d[r]) : F16ToF32(Load<uint16_t>(d, r));
    acc = std::fma(static_cast<float>(dot), d_w * x[b].d, acc);
    if (HasM(f)) {
      const int32_t min = s.min[0] * x[b].sum[0] + s.min[1] * x[b].sum[1];
      const float m_w = F16ToF32(Load<uint16_t>(d, kRows + r));
      acc = std::fma(static_cast<float>(min), m_w * x[b].d, acc);
    }
  }
  return acc;
}

template <float (*kProduct)(const uint8_t*, size_t, const MatmulArgs&, size_t)>
void Matmul(const MatmulArgs& a) {
  for (size_t row = 0; row < a.rows; ++row) {
    const uint8_t* group = a.w + row / kRows * a.group_bytes;
    for (size_t c = 0; c < a.columns; ++c) {
      a.y[c * a.y_stride + row] = kProduct(group, row % kRows, a, c);
    }
  }
}

float Exp(float x) {
  if (x < kExpLow) return 0;
  if (x > kExpHigh) return std::numeric_limits<float>::infinity();
  const float shifted = std::fma(x, kLog2E, kRoundToInt);
  const float n = shifted - kRoundToInt;
  float r = std::fma(-n, kLn2High, x);
  r = std::fma(-n, kLn2Low, r);
  float p = kExpPoly[0];
  for (int i = 1; i < 6; ++i) p = std::fma(p, r, kExpPoly[i]);
  const float y = std::fma(p, r * r, r) + 1.0f;
  // In two steps: 2^128 is not a float. Subtraction of the bits leaves n.
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - kRoundToIntBits;
  const int32_t half = exponent >> 1;
  return y * std::bit_cast<float>((half + 127) << 23) *
         std::bit_cast<float>((exponent - half + 127) << 23);
}

void ExpRow(const float* x, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = Exp(x[i]);
}

// Eight partial sums to one.
float Tree(const float* s) {
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

void Quantize(const float* x, size_t blocks, QuantBlock* out) {
  for (size_t b = 0; b < blocks; ++b, x += kQuantValues) {
    float amax = 0;
    for (size_t i = 0; i < kQuantValues; ++i) amax = std::max(amax, std::fabs(x[i]));
    const bool zero = amax < kQuantMin;
    out[b].d = zero ? 0.0f : amax / 127.0f;
    const float inverse = zero ? 0.0f : 127.0f / amax;
    out[b].sum[0] = out[b].sum[1] = 0;
    for (size_t i = 0; i < kQuantValues; ++i) {
      const float shifted = x[i] * inverse + kRoundToInt;
      out[b].q[i] = static_cast<int8_t>(std::bit_cast<int32_t>(shifted) - kRoundToIntBits);
      out[b].sum[i / 16] = static_cast<int16_t>(out[b].sum[i / 16] + out[b].q[i]);
    }
    out[b].offset = -128 * (out[b].sum[0] + out[b].sum[1]);
  }
}

void RmsNorm(const float* x, const float* weight, size_t n, float epsilon, float* y) {
  float partial[8] = {};
  for (size_t i = 0; i < n; ++i) partial[i % 8] = std::fma(x[i], x[i], partial[i % 8]);
  const float mean = Tree(partial) / static_cast<float>(n);
  const float scale = 1.0f / std::sqrt(mean + epsilon);
  for (size_t i = 0; i < n; ++i) y[i] = x[i] * scale * weight[i];
}

void Rope(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos,
          const float* sin) {
  for (size_t h = 0; h < heads; ++h, x += head_dim) {
    for (size_t i = 0; i < dims; i += 2) {
      const float a = x[i], b = x[i + 1];
      x[i] = std::fma(a, cos[i], -(b * sin[i]));
      x[i + 1] = std::fma(b, cos[i + 1], a * sin[i + 1]);
    }
  }
}

void AttendHead(const AttendArgs& a, const float* q, float* out) {
  float max = -std::numeric_limits<float>::infinity(), sum = 0;
  std::fill_n(out, a.head_dim, 0.0f);
  for (size_t base = 0; base < a.positions; base += kPage) {
    const float* keys = a.pages[base / kPage] + a.k_offset;
    const float* values = a.pages[base / kPage] + a.v_offset;
    const size_t seen = std::min(kPage, a.positions - base);
    float p[kPage], partial[8] = {}, new_max = max;
    for (size_t i = 0; i < seen; ++i) {
      float dot = 0;
      for (size_t d = 0; d < a.head_dim; ++d) dot = std::fma(q[d], keys[d * kPage + i], dot);
      p[i] = dot * a.scale;
      new_max = std::max(new_max, p[i]);
    }
    for (size_t i = 0; i < seen; ++i) {
      p[i] = Exp(p[i] - new_max);
      partial[i % 8] += p[i];
    }
    const float correction = Exp(max - new_max);
    sum = std::fma(sum, correction, Tree(partial));
    for (size_t d = 0; d < a.head_dim; ++d) {
      float acc = out[d] * correction;
      for (size_t i = 0; i < seen; ++i) acc = std::fma(p[i], values[i * a.head_dim + d], acc);
      out[d] = acc;
    }
    max = new_max;
  }
  for (size_t d = 0; d < a.head_dim; ++d) out[d] /= sum;
}

void Attend(const AttendArgs& a) {
  for (size_t h = 0; h < a.heads; ++h) {
    AttendHead(a, a.q + h * a.head_dim, a.out + h * a.head_dim);
  }
}

void SiluMul(float* gate, const float* up, size_t n) {
  for (size_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + Exp(-gate[i])) * up[i];
}

void Add(float* x, const float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] += y[i];
}

template <size_t... kIndex>
constexpr QuantMatmuls AllQuantMatmuls(std::index_sequence<kIndex...>) {
  return {{Matmul<QuantProduct<kQuantFormats[kIndex]>>...}};
}
constexpr QuantMatmuls kQuantMatmuls =
    AllQuantMatmuls(std::make_index_sequence<kQuantFormatCount>());

constexpr KernelTable kTable = {
    .name = "scalar",
    .matmul_f32 = Matmul<FloatProduct<F32Weight>>,
    .matmul_f16 = Matmul<FloatProduct<F16Weight>>,
    .matmul_bf16 = Matmul<FloatProduct<Bf16Weight>>,
    .matmul_quant = &kQuantMatmuls,
    .quantize = Quantize,
    .rms_norm = RmsNorm,
    .rope = Rope,
    .attend = Attend,
    .silu_mul = SiluMul,
    .add = Add,
    .exp = ExpRow,
};

}  // namespace

const KernelTable& ScalarKernels() { return kTable; }

}  // namespace efedllm
