// Q8_0, Q4_0 and Q6_K weights times int8 activations.
#include "layers/kernels/avx2/avx2.h"

namespace efedllm::avx2 {
namespace {

constexpr size_t kRows = 16;

__m256i Load(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }

// Four activations in every lane.
__m256i Broadcast(const int8_t* q) {
  int32_t four;
  __builtin_memcpy(&four, q, sizeof four);
  return _mm256_set1_epi32(four);
}

__m256 HalfToFloat(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}

template <size_t kBytes>
void Prefetch(const uint8_t* p) {
  for (size_t i = 0; i < kBytes; i += 64) _mm_prefetch(p + kPrefetchBytes + i, _MM_HINT_T0);
}

// A weight type's Ahead() prefetches what a block streams; its Dots() computes, for eight of a
// group's rows (half 0 or 1), the exact products of block b with block b of kColumns columns.

struct Q8 {
  static constexpr size_t kBytesPerBlock = 512;  // of a group, before the scales
  static constexpr size_t kBlocksPerScale = 1;

  static inline void Ahead(const uint8_t* group, size_t, size_t b) {
    Prefetch<kBytesPerBlock>(group + b * kBytesPerBlock);
  }

  // |w| times x with w's sign: 2 · 128 · 127 fits int16, as long as x is within ±127.
  template <int kColumns>
  static inline void Dots(const uint8_t* group, size_t, size_t b, int half, const QuantBlock* x,
                          size_t stride, __m256i* dot) {
    const __m256i one = _mm256_set1_epi16(1);
    for (int c = 0; c < kColumns; ++c) dot[c] = _mm256_setzero_si256();
    for (int g = 0; g < 8; ++g) {
      const __m256i w = Load(group + b * kBytesPerBlock + g * 64 + half * 32);
      const __m256i magnitude = _mm256_abs_epi8(w);
      for (int c = 0; c < kColumns; ++c) {
        const __m256i signed_x = _mm256_sign_epi8(Broadcast(x[c * stride + b].q + 4 * g), w);
        const __m256i pairs = _mm256_maddubs_epi16(magnitude, signed_x);
        dot[c] = _mm256_add_epi32(dot[c], _mm256_madd_epi16(pairs, one));
      }
    }
  }
};

struct Q4 {
  static constexpr size_t kBytesPerBlock = 256;
  static constexpr size_t kBlocksPerScale = 1;

  static inline void Ahead(const uint8_t* group, size_t, size_t b) {
    Prefetch<kBytesPerBlock>(group + b * kBytesPerBlock);
  }

  // Eight sums of 15 · 127 · 2 stay below 32768: one int16 sum serves the block. The zero point 8
  // goes out at the end.
  template <int kColumns>
  static inline void Dots(const uint8_t* group, size_t, size_t b, int half, const QuantBlock* x,
                          size_t stride, __m256i* dot) {
    const __m256i mask = _mm256_set1_epi8(15), one = _mm256_set1_epi16(1);
    for (int c = 0; c < kColumns; ++c) dot[c] = _mm256_setzero_si256();
    for (int g = 0; g < 4; ++g) {
      const __m256i w = Load(group + b * kBytesPerBlock + g * 64 + half * 32);
      const __m256i below = _mm256_and_si256(w, mask);
      const __m256i above = _mm256_and_si256(_mm256_srli_epi16(w, 4), mask);
      for (int c = 0; c < kColumns; ++c) {
        const int8_t* q = x[c * stride + b].q + 4 * g;
        dot[c] = _mm256_add_epi16(dot[c], _mm256_maddubs_epi16(below, Broadcast(q)));
        dot[c] = _mm256_add_epi16(dot[c], _mm256_maddubs_epi16(above, Broadcast(q + 16)));
      }
    }
    for (int c = 0; c < kColumns; ++c) {
      const __m256i offset = _mm256_srai_epi32(_mm256_set1_epi32(x[c * stride + b].offset), 4);
      dot[c] = _mm256_add_epi32(_mm256_madd_epi16(dot[c], one), offset);
    }
  }
};

struct Q6 {
  static constexpr size_t kBytesPerBlock = 416;  // nibbles, upper bits, sub-scales
  static constexpr size_t kBlocksPerScale = 8;

  static inline void Ahead(const uint8_t* group, size_t blocks, size_t b) {
    Prefetch<256>(group + b * 256);
    Prefetch<128>(group + blocks * 256 + b * 128);
  }

  // Two sums of 63 · 127 · 2 fit int16; multiplying the pairs by the sub-scale joins them.
  template <int kColumns>
  static inline void Dots(const uint8_t* group, size_t blocks, size_t b, int half,
                          const QuantBlock* x, size_t stride, __m256i* dot) {
    const uint8_t* high = group + blocks * 256 + b * 128 + half * 32;
    const uint8_t* scales = group + blocks * 384 + b * 32 + half * 16;
    const __m256i mask = _mm256_set1_epi8(15), two_bits = _mm256_set1_epi8(0x30);
    // [scale below, scale above] of each row, and each of them twice.
    const __m256i both =
        _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(scales)));
    const __m256i scale_above = _mm256_blend_epi16(both, _mm256_srli_epi32(both, 16), 0x55);
    const __m256i scale_below = _mm256_blend_epi16(both, _mm256_slli_epi32(both, 16), 0xaa);
    for (int c = 0; c < kColumns; ++c) {  // the zero point, 32 in every weight
      int32_t sums;
      __builtin_memcpy(&sums, x[c * stride + b].sum, sizeof sums);
      dot[c] =
          _mm256_sub_epi32(_mm256_setzero_si256(),
                           _mm256_slli_epi32(_mm256_madd_epi16(both, _mm256_set1_epi32(sums)), 5));
    }
    for (int h = 0; h < 2; ++h) {
      const __m256i w0 = Load(group + b * 256 + h * 128 + half * 32);
      const __m256i w1 = Load(group + b * 256 + h * 128 + 64 + half * 32);
      const __m256i bits = Load(high + h * 64);
      const __m256i below0 = _mm256_or_si256(
          _mm256_and_si256(w0, mask), _mm256_and_si256(_mm256_slli_epi16(bits, 4), two_bits));
      const __m256i above0 =
          _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(w0, 4), mask),
                          _mm256_and_si256(_mm256_slli_epi16(bits, 2), two_bits));
      const __m256i below1 =
          _mm256_or_si256(_mm256_and_si256(w1, mask), _mm256_and_si256(bits, two_bits));
      const __m256i above1 =
          _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(w1, 4), mask),
                          _mm256_and_si256(_mm256_srli_epi16(bits, 2), two_bits));
      for (int c = 0; c < kColumns; ++c) {
        const int8_t* q = x[c * stride + b].q + 8 * h;
        const __m256i below = _mm256_add_epi16(_mm256_maddubs_epi16(below0, Broadcast(q)),
                                               _mm256_maddubs_epi16(below1, Broadcast(q + 4)));
        const __m256i above = _mm256_add_epi16(_mm256_maddubs_epi16(above0, Broadcast(q + 16)),
                                               _mm256_maddubs_epi16(above1, Broadcast(q + 20)));
        dot[c] = _mm256_add_epi32(dot[c], _mm256_madd_epi16(below, scale_below));
        dot[c] = _mm256_add_epi32(dot[c], _mm256_madd_epi16(above, scale_above));
      }
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
  __m256 acc[2][kColumns];
  for (auto& half : acc) {
    for (__m256& v : half) v = _mm256_setzero_ps();
  }
  for (size_t b = 0; b < blocks; ++b) {
    if (column == 0) W::Ahead(group, blocks, b);
    for (int half = 0; half < 2; ++half) {
      __m256i dot[kColumns];
      W::template Dots<kColumns>(group, blocks, b, half, x, a.x_stride, dot);
      const __m256 d = HalfToFloat(scales + b / W::kBlocksPerScale * 32 + half * 16);
      for (int c = 0; c < kColumns; ++c) {
        const __m256 dd = _mm256_mul_ps(d, _mm256_broadcast_ss(&x[c * a.x_stride + b].d));
        acc[half][c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[c]), dd, acc[half][c]);
      }
    }
  }
  const size_t rows = a.rows - row < kRows ? a.rows - row : kRows;
  for (int c = 0; c < kColumns; ++c) {
    alignas(32) float all[kRows];
    _mm256_store_ps(all, acc[0][c]);
    _mm256_store_ps(all + 8, acc[1][c]);
    __builtin_memcpy(a.y + (column + c) * a.y_stride + row, all, rows * sizeof(float));
  }
}

template <class W>
void Matmul(const MatmulArgs& a) {
  for (size_t row = 0; row < a.rows; row += kRows) {
    size_t c = 0;
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

}  // namespace efedllm::avx2
