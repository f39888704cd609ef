// The definition of every kernel: plain loops in the order that docs/numerics.md writes down.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "layers/kernels/constants.h"
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

// A weight type gives the exact integer product of block b of row r with x, and the block's d.

struct Q8Weight {
  static int32_t Dot(const uint8_t* group, size_t, size_t b, size_t r, const QuantBlock& x) {
    int32_t dot = 0;
    for (size_t i = 0; i < 32; ++i) {
      dot += Load<int8_t>(group, ((b * 8 + i / 4) * kRows + r) * 4 + i % 4) * x.q[i];
    }
    return dot;
  }
  static float D(const uint8_t* group, size_t blocks, size_t b, size_t r) {
    return F16ToF32(Load<uint16_t>(group + blocks * 32 * kRows, b * kRows + r));
  }
};

struct Q4Weight {
  static int32_t Dot(const uint8_t* group, size_t, size_t b, size_t r, const QuantBlock& x) {
    int32_t dot = 0;
    for (size_t i = 0; i < 16; ++i) {
      const uint8_t v = group[((b * 4 + i / 4) * kRows + r) * 4 + i % 4];
      dot += ((v & 15) - 8) * x.q[i] + ((v >> 4) - 8) * x.q[16 + i];
    }
    return dot;
  }
  static float D(const uint8_t* group, size_t blocks, size_t b, size_t r) {
    return F16ToF32(Load<uint16_t>(group + blocks * 16 * kRows, b * kRows + r));
  }
};

struct Q6Weight {
  static int32_t Dot(const uint8_t* group, size_t blocks, size_t b, size_t r, const QuantBlock& x) {
    const uint8_t* high = group + blocks * 16 * kRows;
    const uint8_t* scales = high + blocks * 8 * kRows;
    int32_t below = 0, above = 0;
    for (size_t i = 0; i < 16; ++i) {
      const uint8_t v = group[((b * 4 + i / 4) * kRows + r) * 4 + i % 4];
      const int h = high[((b * 2 + i / 8) * kRows + r) * 4 + i % 4] >> (i / 4 % 2 * 4);
      below += (((v & 15) | (h & 3) << 4) - 32) * x.q[i];
      above += (((v >> 4) | (h >> 2 & 3) << 4) - 32) * x.q[16 + i];
    }
    const size_t s = (b * kRows + r) * 2;
    return Load<int8_t>(scales, s) * below + Load<int8_t>(scales, s + 1) * above;
  }
  static float D(const uint8_t* group, size_t blocks, size_t b, size_t r) {
    return F16ToF32(Load<uint16_t>(group + blocks * 26 * kRows, b / 8 * kRows + r));
  }
};

template <class Weight>
float QuantProduct(const uint8_t* group, size_t r, const MatmulArgs& a, size_t c) {
  const QuantBlock* x = static_cast<const QuantBlock*>(a.x) + c * a.x_stride;
  const size_t blocks = a.k / kQuantValues;
  float acc = 0;
  for (size_t b = 0; b < blocks; ++b) {
    const float d = Weight::D(group, blocks, b, r) * x[b].d;
    acc = std::fma(static_cast<float>(Weight::Dot(group, blocks, b, r, x[b])), d, acc);
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

constexpr KernelTable kTable = {
    .name = "scalar",
    .matmul_f32 = Matmul<FloatProduct<F32Weight>>,
    .matmul_f16 = Matmul<FloatProduct<F16Weight>>,
    .matmul_bf16 = Matmul<FloatProduct<Bf16Weight>>,
    .matmul_q8_0 = Matmul<QuantProduct<Q8Weight>>,
    .matmul_q4_0 = Matmul<QuantProduct<Q4Weight>>,
    .matmul_q6_k = Matmul<QuantProduct<Q6Weight>>,
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
