#include "layers/kernels/avx2/avx2.h"

namespace efedllm::avx2 {
namespace {

constexpr size_t kPage = 64;
constexpr int kVectors = kPage / 8;

// s[i] = scale · (q · key i) for a page's 64 positions, seen or not.
void Scores(const AttendArgs& a, const float* q, const float* keys, __m256* s) {
  for (int j = 0; j < kVectors; ++j) s[j] = _mm256_setzero_ps();
  for (size_t d = 0; d < a.head_dim; ++d, keys += kPage) {
    const __m256 x = _mm256_broadcast_ss(q + d);
    for (int j = 0; j < kVectors; ++j) {
      s[j] = _mm256_fmadd_ps(x, _mm256_loadu_ps(keys + 8 * j), s[j]);
    }
  }
  for (int j = 0; j < kVectors; ++j) s[j] = _mm256_mul_ps(s[j], _mm256_set1_ps(a.scale));
}

// All ones in the lanes of vector j whose position is seen.
__m256 SeenMask(size_t seen, int j) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i count = _mm256_set1_epi32(static_cast<int>(seen) - 8 * j);
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, lane));
}

float MaxOfSeen(const __m256* s, size_t seen, float max) {
  __m256 max8 = _mm256_set1_ps(max);
  for (int j = 0; j < kVectors; ++j) {
    max8 = _mm256_max_ps(max8, _mm256_blendv_ps(max8, s[j], SeenMask(seen, j)));
  }
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(max8), _mm256_extractf128_ps(max8, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// out[0, 8 * kWide) = out · correction + Σ p[i] · value i.
template <int kWide>
void AddValues(const float* p, size_t seen, float correction, const float* values, size_t head_dim,
               float* out) {
  __m256 acc[kWide];
  for (int j = 0; j < kWide; ++j) {
    acc[j] = _mm256_mul_ps(_mm256_loadu_ps(out + 8 * j), _mm256_set1_ps(correction));
  }
  for (size_t i = 0; i < seen; ++i, values += head_dim) {
    const __m256 weight = _mm256_broadcast_ss(p + i);
    for (int j = 0; j < kWide; ++j) {
      acc[j] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(values + 8 * j), acc[j]);
    }
  }
  for (int j = 0; j < kWide; ++j) _mm256_storeu_ps(out + 8 * j, acc[j]);
}

void AddAllValues(size_t n, const float* p, size_t seen, float correction, const float* values,
                  float* out) {
  size_t d = 0;
  for (; d + 64 <= n; d += 64) AddValues<8>(p, seen, correction, values + d, n, out + d);
  for (; d + 32 <= n; d += 32) AddValues<4>(p, seen, correction, values + d, n, out + d);
  for (; d + 8 <= n; d += 8) AddValues<1>(p, seen, correction, values + d, n, out + d);
  for (; d < n; ++d) {
    float acc = out[d] * correction;
    for (size_t i = 0; i < seen; ++i) acc = __builtin_fmaf(p[i], values[i * n + d], acc);
    out[d] = acc;
  }
}

// One page for one head.
void Page(const AttendArgs& a, const float* q, size_t base, float* max, float* sum, float* out) {
  const float* page = a.pages[base / kPage];
  const size_t seen = a.positions - base < kPage ? a.positions - base : kPage;
  __m256 s[kVectors];
  Scores(a, q, page + a.k_offset, s);
  const float new_max = MaxOfSeen(s, seen, *max);
  alignas(32) float p[kPage];
  __m256 partial = _mm256_setzero_ps();
  for (int j = 0; j < kVectors; ++j) {
    // What is not seen weighs +0 and so adds nothing.
    const __m256 e =
        _mm256_and_ps(ExpVector(_mm256_sub_ps(s[j], _mm256_set1_ps(new_max))), SeenMask(seen, j));
    _mm256_store_ps(p + 8 * j, e);
    partial = _mm256_add_ps(partial, e);
  }
  const float correction = _mm256_cvtss_f32(ExpVector(_mm256_set1_ps(*max - new_max)));
  *sum = __builtin_fmaf(*sum, correction, Tree(partial));
  *max = new_max;
  AddAllValues(a.head_dim, p, seen, correction, page + a.v_offset, out);
}

}  // namespace

void Attend(const AttendArgs& a) {
  float max[kMaxAttendHeads], sum[kMaxAttendHeads];
  for (size_t h = 0; h < a.heads; ++h) {
    max[h] = -__builtin_inff();
    sum[h] = 0;
    for (size_t d = 0; d < a.head_dim; ++d) a.out[h * a.head_dim + d] = 0;
  }
  for (size_t base = 0; base < a.positions; base += kPage) {
    for (size_t h = 0; h < a.heads; ++h) {
      Page(a, a.q + h * a.head_dim, base, &max[h], &sum[h], a.out + h * a.head_dim);
    }
  }
  for (size_t h = 0; h < a.heads; ++h) {
    for (size_t d = 0; d < a.head_dim; ++d) a.out[h * a.head_dim + d] /= sum[h];
  }
}

}  // namespace efedllm::avx2
