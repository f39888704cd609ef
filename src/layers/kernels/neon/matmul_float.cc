// f32, f16 and bf16 weights times f32 activations.
#include "layers/kernels/neon/neon.h"

namespace efedllm::neon {
namespace {

constexpr size_t kRows = 16;
constexpr int kVectors = kRows / 4;

// The first columns to read a group ask for weights this many bytes ahead.
constexpr size_t kPrefetchBytes = 2048;

// 16 weights, widened.
struct F32 {
  static constexpr size_t kBytes = 4;
  static void Load(const uint8_t* p, float32x4_t* w) {
    for (int v = 0; v < kVectors; ++v) w[v] = vreinterpretq_f32_u8(vld1q_u8(p + 16 * v));
  }
};
struct F16 {
  static constexpr size_t kBytes = 2;
  static void Load(const uint8_t* p, float32x4_t* w) {
    for (int v = 0; v < kVectors; ++v) w[v] = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * v)));
  }
};
struct Bf16 {
  static constexpr size_t kBytes = 2;
  static void Load(const uint8_t* p, float32x4_t* w) {
    for (int v = 0; v < kVectors; ++v) {
      w[v] = vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p + 8 * v)), 16));
    }
  }
};

void StoreRows(float* y, size_t rows, const float32x4_t* acc) {
  float all[kRows];
  for (int v = 0; v < kVectors; ++v) vst1q_f32(all + 4 * v, acc[v]);
  __builtin_memcpy(y, all, (rows < kRows ? rows : kRows) * sizeof(float));
}

// kGroups groups of 16 rows from row first on, times kColumns columns from column c on. One row of
// activations alone needs two groups, to have enough sums in flight.
template <class W, int kGroups, int kColumns>
void Tile(const MatmulArgs& a, size_t first, size_t c) {
  const uint8_t* w = a.w + first / kRows * a.group_bytes;
  const float* x = static_cast<const float*>(a.x) + c * a.x_stride;
  float32x4_t acc[kGroups][kColumns][kVectors];
  for (auto& group : acc) {
    for (auto& column : group) {
      for (float32x4_t& v : column) v = vdupq_n_f32(0);
    }
  }
  for (size_t k = 0; k < a.k; ++k, w += kRows * W::kBytes) {
    for (int g = 0; g < kGroups; ++g) {
      const uint8_t* from = w + g * a.group_bytes;
      if (c == 0) __builtin_prefetch(from + kPrefetchBytes);
      float32x4_t weights[kVectors];
      W::Load(from, weights);
      for (int j = 0; j < kColumns; ++j) {
        const float32x4_t b = vld1q_dup_f32(x + j * a.x_stride + k);
        for (int v = 0; v < kVectors; ++v) {
          acc[g][j][v] = vfmaq_f32(acc[g][j][v], weights[v], b);
        }
      }
    }
  }
  for (int g = 0; g < kGroups; ++g) {
    const size_t row = first + g * kRows;
    for (int j = 0; j < kColumns; ++j) {
      StoreRows(a.y + (c + j) * a.y_stride + row, a.rows - row, acc[g][j]);
    }
  }
}

template <class W>
void Columns(const MatmulArgs& a, size_t row) {
  size_t c = 0;
  for (; c + 6 <= a.columns; c += 6) Tile<W, 1, 6>(a, row, c);
  switch (a.columns - c) {
    case 5:
      return Tile<W, 1, 5>(a, row, c);
    case 4:
      return Tile<W, 1, 4>(a, row, c);
    case 3:
      return Tile<W, 1, 3>(a, row, c);
    case 2:
      return Tile<W, 1, 2>(a, row, c);
    case 1:
      return Tile<W, 1, 1>(a, row, c);
  }
}

template <class W>
void Matmul(const MatmulArgs& a) {
  size_t row = 0;
  if (a.columns == 1) {
    for (; row + kRows < a.rows; row += 2 * kRows) Tile<W, 2, 1>(a, row, 0);
  }
  for (; row < a.rows; row += kRows) Columns<W>(a, row);
}

}  // namespace

void MatmulF32(const MatmulArgs& a) { Matmul<F32>(a); }
void MatmulF16(const MatmulArgs& a) { Matmul<F16>(a); }
void MatmulBf16(const MatmulArgs& a) { Matmul<Bf16>(a); }

}  // namespace efedllm::neon
