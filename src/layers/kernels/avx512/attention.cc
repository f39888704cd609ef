// As AVX2's attention, with pages of 64 positions in four registers and two heads at a time, which
// share the loads of keys and values. exp is AVX2's, on halves.
#include "layers/kernels/avx2/avx2.h"
#include "layers/kernels/avx512/avx512.h"

namespace efedllm::avx512 {
namespace {

constexpr size_t kPage = 64;
constexpr int kVectors = kPage / 16;

// s[h][i] = scale · (q h · key i) for a page's 64 positions, seen or not.
template <int kHeads>
void Scores(const AttendArgs& a, const float* q, const float* keys, float (*s)[kPage]) {
  __m512 acc[kHeads][kVectors];
  for (auto& head : acc) {
    for (__m512& v : head) v = _mm512_setzero_ps();
  }
  for (size_t d = 0; d < a.head_dim; ++d, keys += kPage) {
    __m512 k[kVectors];
    for (int j = 0; j < kVectors; ++j) k[j] = _mm512_loadu_ps(keys + 16 * j);
    for (int h = 0; h < kHeads; ++h) {
      const __m512 x = _mm512_set1_ps(q[h * a.head_dim + d]);
      for (int j = 0; j < kVectors; ++j) acc[h][j] = _mm512_fmadd_ps(x, k[j], acc[h][j]);
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int j = 0; j < kVectors; ++j) {
      _mm512_store_ps(s[h] + 16 * j, _mm512_mul_ps(acc[h][j], _mm512_set1_ps(a.scale)));
    }
  }
}

float MaxOfSeen(const float* s, size_t seen, float max) {
  __m512 max16 = _mm512_set1_ps(max);
  for (size_t i = 0; i < seen; i += 16) {
    const unsigned mask = seen - i >= 16 ? 0xffffu : (1u << (seen - i)) - 1;
    max16 = _mm512_mask_max_ps(max16, static_cast<__mmask16>(mask), max16, _mm512_load_ps(s + i));
  }
  return _mm512_reduce_max_ps(max16);
}

// p[i] = exp(s[i] - max) in place, 0 where not seen. Returns the sum.
float Weigh(float* s, size_t seen, float max) {
  __m256 partial = _mm256_setzero_ps();
  for (size_t i = 0; i < kPage; i += 8) {
    const size_t left = seen > i ? seen - i : 0;
    const unsigned mask = left >= 8 ? 0xffu : (1u << left) - 1;
    const __m256 e = avx2::ExpVector(_mm256_sub_ps(_mm256_load_ps(s + i), _mm256_set1_ps(max)));
    const __m256 p = _mm256_maskz_mov_ps(static_cast<__mmask8>(mask), e);
    _mm256_store_ps(s + i, p);
    partial = _mm256_add_ps(partial, p);
  }
  return avx2::Tree(partial);
}

// out[h] = out[h] · correction[h] + Σ p[h][i] · value i, for 16 · kWide dimensions; the last
// vector's by mask.
template <int kHeads, int kWide>
void AddValues(const float (*p)[kPage], size_t seen, const float* correction, const float* values,
               size_t head_dim, __mmask16 last, float* out) {
  __m512 acc[kHeads][kWide];
  for (int h = 0; h < kHeads; ++h) {
    for (int j = 0; j < kWide; ++j) {
      const __mmask16 mask = j == kWide - 1 ? last : static_cast<__mmask16>(0xffff);
      const __m512 old = _mm512_maskz_loadu_ps(mask, out + h * head_dim + 16 * j);
      acc[h][j] = _mm512_mul_ps(old, _mm512_set1_ps(correction[h]));
    }
  }
  for (size_t i = 0; i < seen; ++i, values += head_dim) {
    for (int j = 0; j < kWide; ++j) {
      const __mmask16 mask = j == kWide - 1 ? last : static_cast<__mmask16>(0xffff);
      const __m512 v = _mm512_maskz_loadu_ps(mask, values + 16 * j);
      for (int h = 0; h < kHeads; ++h) {
        acc[h][j] = _mm512_fmadd_ps(_mm512_set1_ps(p[h][i]), v, acc[h][j]);
      }
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int j = 0; j < kWide; ++j) {
      const __mmask16 mask = j == kWide - 1 ? last : static_cast<__mmask16>(0xffff);
      _mm512_mask_storeu_ps(out + h * head_dim + 16 * j, mask, acc[h][j]);
    }
  }
}

template <int kHeads>
void AddAllValues(const AttendArgs& a, const float (*p)[kPage], size_t seen,
                  const float* correction, const float* values, float* out) {
  const size_t n = a.head_dim;
  size_t d = 0;
  for (; d + 64 <= n; d += 64) {
    AddValues<kHeads, 4>(p, seen, correction, values + d, n, 0xffff, out + d);
  }
  for (; d < n; d += 16) {
    const unsigned last = n - d >= 16 ? 0xffffu : (1u << (n - d)) - 1;
    AddValues<kHeads, 1>(p, seen, correction, values + d, n, static_cast<__mmask16>(last), out + d);
  }
}

// One page for kHeads heads from head on.
template <int kHeads>
void Page(const AttendArgs& a, size_t head, size_t base, float* max, float* sum) {
  const float* page = a.pages[base / kPage];
  const size_t seen = a.positions - base < kPage ? a.positions - base : kPage;
  alignas(64) float p[kHeads][kPage];
  float correction[kHeads];
  Scores<kHeads>(a, a.q + head * a.head_dim, page + a.k_offset, p);
  for (int h = 0; h < kHeads; ++h) {
    const float new_max = MaxOfSeen(p[h], seen, max[head + h]);
    const float page_sum = Weigh(p[h], seen, new_max);
    correction[h] = _mm256_cvtss_f32(avx2::ExpVector(_mm256_set1_ps(max[head + h] - new_max)));
    sum[head + h] = __builtin_fmaf(sum[head + h], correction[h], page_sum);
    max[head + h] = new_max;
  }
  AddAllValues<kHeads>(a, p, seen, correction, page + a.v_offset, a.out + head * a.head_dim);
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
    size_t h = 0;
    for (; h + 2 <= a.heads; h += 2) Page<2>(a, h, base, max, sum);
    if (h < a.heads) Page<1>(a, h, base, max, sum);
  }
  for (size_t h = 0; h < a.heads; ++h) {
    for (size_t d = 0; d < a.head_dim; ++d) a.out[h * a.head_dim + d] /= sum[h];
  }
}

}  // namespace efedllm::avx512
