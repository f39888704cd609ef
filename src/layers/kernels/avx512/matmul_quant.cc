// Q8_0, Q4_0 and Q6_K weights times int8 activations, with VNNI: vpdpbusd adds four products of
// unsigned weights and signed activations to an int32, exactly. What makes the weights unsigned
// (their zero point times the sum of the activations) is where the sum begins.
#include "layers/kernels/avx512/avx512.h"

namespace efedllm::avx512 {
namespace {

constexpr size_t kRows = 16;

__m512i Load(const uint8_t* p) { return _mm512_load_si512(p); }

// Four activations in every lane.
__m512i Broadcast(const int8_t* q) {
  int32_t four;
  __builtin_memcpy(&four, q, sizeof four);
  return _mm512_set1_epi32(four);
}

template <size_t kBytes>
void Prefetch(const uint8_t* p) {
  for (size_t i = 0; i < kBytes; i += 64) _mm_prefetch(p + kPrefetchBytes + i, _MM_HINT_T0);
}

// A weight type's Ahead() prefetches what a block streams; its Dots() computes the exact products
// of block b of a group's rows with block b of kColumns columns.

struct Q8 {
  static constexpr int kTileColumns = 8;
  static constexpr size_t kBytesPerBlock = 512;  // of a group, before the scales
  static constexpr size_t kBlocksPerScale = 1;

  static inline void Ahead(const uint8_t* group, size_t, size_t b) {
    Prefetch<kBytesPerBlock>(group + b * kBytesPerBlock);
  }

  template <int kColumns>
  static inline void Dots(const uint8_t* group, size_t, size_t b, const QuantBlock* x,
                          size_t stride, __m512i* dot) {
    const __m512i plus128 = _mm512_set1_epi8(-128);
    for (int c = 0; c < kColumns; ++c) dot[c] = _mm512_set1_epi32(x[c * stride + b].offset);
    for (int g = 0; g < 8; ++g) {
      const __m512i w = _mm512_xor_si512(Load(group + b * kBytesPerBlock + g * 64), plus128);
      for (int c = 0; c < kColumns; ++c) {
        dot[c] = _mm512_dpbusd_epi32(dot[c], w, Broadcast(x[c * stride + b].q + 4 * g));
      }
    }
  }
};

struct Q4 {
  static constexpr int kTileColumns = 8;
  static constexpr size_t kBytesPerBlock = 256;
  static constexpr size_t kBlocksPerScale = 1;

  static inline void Ahead(const uint8_t* group, size_t, size_t b) {
    Prefetch<kBytesPerBlock>(group + b * kBytesPerBlock);
  }

  template <int kColumns>
  static inline void Dots(const uint8_t* group, size_t, size_t b, const QuantBlock* x,
                          size_t stride, __m512i* dot) {
    const __m512i mask = _mm512_set1_epi8(15);
    for (int c = 0; c < kColumns; ++c) {
      dot[c] = _mm512_srai_epi32(_mm512_set1_epi32(x[c * stride + b].offset), 4);
    }
    for (int g = 0; g < 4; ++g) {
      const __m512i w = Load(group + b * kBytesPerBlock + g * 64);
      const __m512i below = _mm512_and_si512(w, mask);
      const __m512i above = _mm512_and_si512(_mm512_srli_epi16(w, 4), mask);
      for (int c = 0; c < kColumns; ++c) {
        const int8_t* q = x[c * stride + b].q + 4 * g;
        dot[c] = _mm512_dpbusd_epi32(dot[c], below, Broadcast(q));
        dot[c] = _mm512_dpbusd_epi32(dot[c], above, Broadcast(q + 16));
      }
    }
  }
};

struct Q6 {
  static constexpr int kTileColumns = 4;  // two sums a column: more would not fit the registers
  static constexpr size_t kBytesPerBlock = 416;  // nibbles, upper bits, sub-scales
  static constexpr size_t kBlocksPerScale = 8;

  static inline void Ahead(const uint8_t* group, size_t blocks, size_t b) {
    Prefetch<256>(group + b * 256);
    Prefetch<128>(group + blocks * 256 + b * 128);
  }

  template <int kColumns>
  static inline void Dots(const uint8_t* group, size_t blocks, size_t b, const QuantBlock* x,
                          size_t stride, __m512i* dot) {
    const uint8_t* high = group + blocks * 256 + b * 128;
    const uint8_t* scales = group + blocks * 384 + b * 32;
    const __m512i mask = _mm512_set1_epi8(15), two_bits = _mm512_set1_epi8(0x30);
    __m512i below[kColumns], above[kColumns];
    for (int c = 0; c < kColumns; ++c) {
      below[c] = _mm512_set1_epi32(-32 * x[c * stride + b].sum[0]);
      above[c] = _mm512_set1_epi32(-32 * x[c * stride + b].sum[1]);
    }
    for (int g = 0; g < 4; ++g) {
      const __m512i w = Load(group + b * 256 + g * 64);
      const __m512i bits = Load(high + g / 2 * 64);
      // The fields of a byte: below and above of an even g, then of an odd g.
      const __m512i bits_below = g % 2 == 0 ? _mm512_slli_epi16(bits, 4) : bits;
      const __m512i bits_above =
          g % 2 == 0 ? _mm512_slli_epi16(bits, 2) : _mm512_srli_epi16(bits, 2);
      const __m512i w_below =
          _mm512_or_si512(_mm512_and_si512(w, mask), _mm512_and_si512(bits_below, two_bits));
      const __m512i w_above = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(w, 4), mask),
                                              _mm512_and_si512(bits_above, two_bits));
      for (int c = 0; c < kColumns; ++c) {
        const int8_t* q = x[c * stride + b].q + 4 * g;
        below[c] = _mm512_dpbusd_epi32(below[c], w_below, Broadcast(q));
        above[c] = _mm512_dpbusd_epi32(above[c], w_above, Broadcast(q + 16));
      }
    }
    const __m512i both =
        _mm512_cvtepi16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(scales)));
    const __m512i scale_above = _mm512_srai_epi32(both, 8);
    const __m512i scale_below = _mm512_srai_epi32(_mm512_slli_epi32(both, 24), 24);
    for (int c = 0; c < kColumns; ++c) {
      dot[c] = _mm512_add_epi32(_mm512_mullo_epi32(below[c], scale_below),
                                _mm512_mullo_epi32(above[c], scale_above));
    }
  }
};

// The group of 16 rows from row on, times kColumns columns from column on.
template <class W, int kColumns>
void Tile(const MatmulArgs& a, size_t row, size_t column) {
  const uint8_t* group = a.w + row / kRows * a.group_bytes;
  const QuantBlock* x = static_cast<const QuantBlock*>(a.x) + column * a.x_stride;
  const size_t blocks = a.k / kQuantValues;
  const uint8_t* scales = group + blocks * W::kBytesPerBlock;
  __m512 acc[kColumns];
  for (__m512& v : acc) v = _mm512_setzero_ps();
  for (size_t b = 0; b < blocks; ++b) {
    if (column == 0) W::Ahead(group, blocks, b);
    __m512i dot[kColumns];
    W::template Dots<kColumns>(group, blocks, b, x, a.x_stride, dot);
    const __m512 d = _mm512_cvtph_ps(
        _mm256_load_si256(reinterpret_cast<const __m256i*>(scales + b / W::kBlocksPerScale * 32)));
    for (int c = 0; c < kColumns; ++c) {
      const __m512 dd = _mm512_mul_ps(d, _mm512_set1_ps(x[c * a.x_stride + b].d));
      acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[c]), dd, acc[c]);
    }
  }
  for (int c = 0; c < kColumns; ++c) {
    StoreRows(a.y + (column + c) * a.y_stride + row, a.rows - row, acc[c]);
  }
}

template <class W>
void Matmul(const MatmulArgs& a) {
  for (size_t row = 0; row < a.rows; row += kRows) {
    size_t c = 0;
    for (; c + W::kTileColumns <= a.columns; c += W::kTileColumns) {
      Tile<W, W::kTileColumns>(a, row, c);
    }
    for (; c + 4 <= a.columns; c += 4) Tile<W, 4>(a, row, c);
    if (a.columns - c == 3) Tile<W, 3>(a, row, c);
    if (a.columns - c == 2) Tile<W, 2>(a, row, c);
    if (a.columns - c == 1) Tile<W, 1>(a, row, c);
  }
}

}  // namespace

void MatmulQ8_0(const MatmulArgs& a) { Matmul<Q8>(a); }
void MatmulQ4_0(const MatmulArgs& a) { Matmul<Q4>(a); }
void MatmulQ6K(const MatmulArgs& a) { Matmul<Q6>(a); }

}  // namespace efedllm::avx512
