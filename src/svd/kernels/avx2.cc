// Leaf code, compiled for AVX2: nothing here may be seen by other files but the table.
#include <immintrin.h>

#include "svd/kernels/codec_kernels.h"
#include "svd/kernels/row_loops.h"
#include "svd/kernels/trellis_loops.h"

namespace efedllm {
namespace {

constexpr size_t kVectorOutputs = 8;
constexpr size_t kMostRows = 5;

inline __m256i Load(const int16_t* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}
inline __m256i Load(const int8_t* at) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

// kVectors · 8 outputs of kRows rows.
template <class Entry, size_t kRows, size_t kVectors>
void ProjectTile(const ProjectionArgs& args, const Entry* weights, size_t row, int32_t* y) {
  __m256i sums[kRows][kVectors];
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t v = 0; v < kVectors; ++v) sums[r][v] = _mm256_setzero_si256();
  }
  const int16_t* x = args.x + row * args.x_stride;
  for (size_t pair = 0; pair < args.pairs; ++pair) {
    __m256i w[kVectors];
    for (size_t v = 0; v < kVectors; ++v) {
      w[v] = Load(weights + pair * kPanelOutputs * 2 + v * 2 * kVectorOutputs);
    }
    for (size_t r = 0; r < kRows; ++r) {
      int32_t both;
      __builtin_memcpy(&both, x + r * args.x_stride + 2 * pair, sizeof(both));
      const __m256i factor = _mm256_set1_epi32(both);
      for (size_t v = 0; v < kVectors; ++v) {
        // Two products of -2^15 · -2^15 would overflow to -2^31: the same number modulo 2^32.
        sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(factor, w[v]));
      }
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t v = 0; v < kVectors; ++v) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + r * args.y_stride + v * kVectorOutputs),
                          sums[r][v]);
    }
  }
}

template <class Entry, size_t kRows, size_t kVectors>
void ProjectRows(const ProjectionArgs& args, const Entry* weights, size_t row, int32_t* y) {
  for (size_t o = 0; o < kPanelOutputs; o += kVectors * kVectorOutputs) {
    ProjectTile<Entry, kRows, kVectors>(args, weights + 2 * o, row, y + row * args.y_stride + o);
  }
}

template <class Entry>
void Project(const ProjectionArgs& args) {
  for (size_t panel = 0; panel < args.panels; ++panel) {
    const Entry* weights =
        static_cast<const Entry*>(args.matrix) + panel * args.panel_pairs * kPanelOutputs * 2;
    int32_t* y = args.y + panel * kPanelOutputs;
    size_t row = 0;
    for (; row + kMostRows <= args.rows; row += kMostRows) {
      ProjectRows<Entry, kMostRows, 2>(args, weights, row, y);
    }
    for (; row < args.rows; ++row) ProjectRows<Entry, 1, 8>(args, weights, row, y);
  }
}

uint32_t Trellis(const int32_t* x, size_t n, int32_t* errors, uint8_t* choices, int16_t* q) {
  TrellisErrors(x, n, errors);
  __m128i cost = _mm_setr_epi32(0, kUnreached, kUnreached, kUnreached);
  for (size_t j = 0; j < n; ++j) {
    const __m128i error = _mm_loadu_si128(reinterpret_cast<const __m128i*>(errors + 4 * j));
    const __m128i even = _mm_add_epi32(_mm_shuffle_epi32(cost, _MM_SHUFFLE(2, 0, 2, 0)), error);
    const __m128i odd = _mm_add_epi32(_mm_shuffle_epi32(cost, _MM_SHUFFLE(3, 1, 3, 1)),
                                      _mm_shuffle_epi32(error, _MM_SHUFFLE(1, 0, 3, 2)));
    cost = _mm_min_epi32(even, odd);
    choices[j] =
        static_cast<uint8_t>(_mm_movemask_ps(_mm_castsi128_ps(_mm_cmplt_epi32(odd, even))));
  }
  alignas(16) int32_t costs[4];
  _mm_store_si128(reinterpret_cast<__m128i*>(costs), cost);
  return TrellisTrace(x, n, costs, choices, q);
}

}  // namespace

extern const CodecKernels kAvx2CodecTable = {
    "avx2",      Project<int8_t>, Project<int16_t>, Center,       RootMeanSquare, RoundToInt16,
    RoundFloats, RoundSums,       Trellis,          RestoreInt16, RestoreInt32,   SquaredError,
    ToF16,       FromF16,         ToInt8,           FromInt8};

}  // namespace efedllm
