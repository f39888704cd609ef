// The definition of the matrix products, and the table of all definitions: plain loops in the order
// that docs/numerics.md writes down.
#include "layers/kernels/scalar.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "layers/kernels/group_layout.h"
#include "layers/kernels/kernel_table.h"
#include "layers/packed_matrix.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

constexpr size_t kRows = kGroupRows;

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
    .quantize = scalar::Quantize,
    .rms_norm = scalar::RmsNorm,
    .rope = scalar::Rope,
    .rope_halves = scalar::RopeHalves,
    .attend = scalar::Attend,
    .to_f16 = scalar::ToF16,
    .silu_mul = scalar::SiluMul,
    .gelu_mul = scalar::GeluMul,
    .soft_cap = scalar::SoftCap,
    .add = scalar::Add,
    .add_scaled = scalar::AddScaled,
    .exp = scalar::ExpRow,
};

}  // namespace

const KernelTable& ScalarKernels() { return kTable; }

}  // namespace efedllm
