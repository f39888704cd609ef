// As AVX2's attention, with up to eight queries at a time.
#include "layers/kernels/attend_pages.h"
#include "layers/kernels/avx2/avx2.h"
#include "layers/kernels/avx512/avx512.h"

namespace efedllm::avx512 {
namespace {

constexpr int kVectors = kKvPage / 16;
constexpr size_t kMaxTogether = 8;

using Batch = AttendBatch<kMaxTogether>;

template <KvType kType>
__m512 Load16(const uint8_t* p) {
  if (kType == KvType::kF32) return _mm512_loadu_ps(p);
  if (kType == KvType::kF16) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

// The first lanes by mask, 0 in the others. Q8_0 has whole vectors.
template <KvType kType>
__m512 LoadMasked(const uint8_t* p, __mmask16 mask) {
  if (kType == KvType::kF32) return _mm512_maskz_loadu_ps(mask, p);
  if (kType == KvType::kF16) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
  return Load16<kType>(p);
}

__m512 BroadcastHalf(const uint8_t* p) {
  uint16_t half;
  __builtin_memcpy(&half, p, sizeof half);
  return _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<short>(half)));
}

// p[q][i] = scale · (q · key i), for all 64 positions, seen or not. The same place of the next page
// lies `ahead` bytes on; it is asked for into the second-level cache, which has room for two pages.
template <KvType kType, int kQueries, int kWide>
void Scores(const AttendArgs& a, const uint8_t* keys, ptrdiff_t ahead, Batch* batch) {
  constexpr size_t kBytes = KvNumberBytes(kType);
  const uint8_t* scales = keys + KvScalesAt(a.head_dim);
  for (int v = 0; v < kVectors; v += kWide) {
    __m512 acc[kQueries][kWide], scale[kWide];
    for (auto& query : acc) {
      for (__m512& sum : query) sum = _mm512_setzero_ps();
    }
    for (size_t d = 0; d < a.head_dim; ++d) {
      const uint8_t* row = keys + (d * kKvPage + 16 * v) * kBytes;
      for (size_t i = 0; i < 16 * kWide * kBytes; i += 64)
        __builtin_prefetch(row + i + ahead, 0, 2);
      if (kType == KvType::kQ8_0 && d % kKvBlock == 0) {
        const uint8_t* from = scales + (d / kKvBlock * kKvPage + 16 * v) * 2;
        for (int j = 0; j < kWide; ++j) scale[j] = Load16<KvType::kF16>(from + 32 * j);
      }
      __m512 k[kWide];
      for (int j = 0; j < kWide; ++j) {
        k[j] = Load16<kType>(row + 16 * j * kBytes);
        if (kType == KvType::kQ8_0) k[j] = _mm512_mul_ps(k[j], scale[j]);
      }
      for (int q = 0; q < kQueries; ++q) {
        const __m512 x = _mm512_set1_ps(batch->queries[q].q[d]);
        for (int j = 0; j < kWide; ++j) acc[q][j] = _mm512_fmadd_ps(x, k[j], acc[q][j]);
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      for (int j = 0; j < kWide; ++j) {
        _mm512_store_ps(batch->p[q] + 16 * (v + j),
                        _mm512_mul_ps(acc[q][j], _mm512_set1_ps(a.scale)));
      }
    }
  }
}

// The bits of positions [begin, end).
uint64_t SeenMask(uint32_t begin, uint32_t end) {
  const uint64_t up_to = end >= kKvPage ? ~uint64_t{0} : (uint64_t{1} << end) - 1;
  return begin >= kKvPage ? 0 : up_to >> begin << begin;
}

// Query q's scores to weights: 0 where it sees nothing.
void Weigh(float soft_cap, int q, Batch* batch) {
  float* p = batch->p[q];
  AttendRunning& running = batch->running[q];
  const uint64_t seen = SeenMask(batch->begin[q], batch->end[q]);
  if (soft_cap != 0) avx2::SoftCap(p, kKvPage, soft_cap);
  __m512 max16 = _mm512_set1_ps(running.max);
  for (int j = 0; j < kVectors; ++j) {
    const auto mask = static_cast<__mmask16>(seen >> (16 * j));
    max16 = _mm512_mask_max_ps(max16, mask, max16, _mm512_load_ps(p + 16 * j));
  }
  const float max = _mm512_reduce_max_ps(max16);
  __m256 partial = _mm256_setzero_ps();
  for (int j = 0; j < kVectors; ++j) {
    const auto mask = static_cast<__mmask16>(seen >> (16 * j));
    const __m512 x = _mm512_sub_ps(_mm512_load_ps(p + 16 * j), _mm512_set1_ps(max));
    const __m512 weight = _mm512_maskz_mov_ps(mask, ExpVector(x));
    _mm512_store_ps(p + 16 * j, weight);
    partial = _mm256_add_ps(partial, _mm512_castps512_ps256(weight));
    partial = _mm256_add_ps(partial, _mm512_extractf32x8_ps(weight, 1));
  }
  batch->correction[q] = 1;  // e^0, also where nothing has been seen yet and the maxima are -inf
  if (max != running.max) {
    const __m256 factor = avx2::ExpVector(_mm256_set1_ps(running.max - max));
    batch->correction[q] = _mm256_cvtss_f32(factor);
  }
  running.sum = __builtin_fmaf(running.sum, batch->correction[q], avx2::Tree(partial));
  running.max = max;
}

// out[q][d + 0 … 16 · kWide) = out · correction + Σ p[q][i] · value i, over what any query sees:
// what another does not see, it weighs with 0. The last vector's lanes by mask.
template <KvType kType, int kQueries, int kWide>
void AddValues(const Batch& batch, const uint8_t* values, ptrdiff_t ahead, size_t head_dim,
               size_t d, __mmask16 last) {
  constexpr size_t kBytes = KvNumberBytes(kType);
  const uint8_t* scales = values + KvScalesAt(head_dim) + d / kKvBlock * 2;
  __m512 acc[kQueries][kWide];
  for (int q = 0; q < kQueries; ++q) {
    for (int j = 0; j < kWide; ++j) {
      const __mmask16 mask = j == kWide - 1 ? last : static_cast<__mmask16>(0xffff);
      const __m512 old = _mm512_maskz_loadu_ps(mask, batch.queries[q].out + d + 16 * j);
      acc[q][j] = _mm512_mul_ps(old, _mm512_set1_ps(batch.correction[q]));
    }
  }
  for (size_t i = batch.first; i < batch.last; ++i) {
    const uint8_t* row = values + (i * head_dim + d) * kBytes;
    for (size_t b = 0; b < 16 * kWide * kBytes; b += 64) __builtin_prefetch(row + b + ahead, 0, 2);
    __m512 v[kWide];
    for (int j = 0; j < kWide; ++j) {
      v[j] = j == kWide - 1 && kWide == 1 ? LoadMasked<kType>(row, last)
                                          : Load16<kType>(row + 16 * j * kBytes);
    }
    if (kType == KvType::kQ8_0) {
      const __m512 scale = BroadcastHalf(scales + i * (head_dim / kKvBlock) * 2);
      for (int j = 0; j < kWide; ++j) v[j] = _mm512_mul_ps(v[j], scale);
    }
    for (int q = 0; q < kQueries; ++q) {
      const __m512 weight = _mm512_set1_ps(batch.p[q][i]);
      for (int j = 0; j < kWide; ++j) acc[q][j] = _mm512_fmadd_ps(weight, v[j], acc[q][j]);
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    for (int j = 0; j < kWide; ++j) {
      const __mmask16 mask = j == kWide - 1 ? last : static_cast<__mmask16>(0xffff);
      _mm512_mask_storeu_ps(batch.queries[q].out + d + 16 * j, mask, acc[q][j]);
    }
  }
}

template <KvType kType, int kQueries>
void Page(const AttendArgs& a, const uint8_t* page, ptrdiff_t ahead, Batch* batch) {
  constexpr int kWide = kQueries > 4 ? 2 : 4;
  Scores<kType, kQueries, kWide>(a, page + a.k_offset, ahead, batch);
  for (int q = 0; q < kQueries; ++q) Weigh(a.soft_cap, q, batch);
  const uint8_t* values = page + a.v_offset;
  const size_t n = a.head_dim;
  size_t d = 0;
  if (kType != KvType::kQ8_0 && kQueries <= 4) {  // two scales
    for (; d + 64 <= n; d += 64) AddValues<kType, kQueries, 4>(*batch, values, ahead, n, d, 0xffff);
  }
  for (; d + 32 <= n; d += 32) AddValues<kType, kQueries, 2>(*batch, values, ahead, n, d, 0xffff);
  for (; d < n; d += 16) {
    const unsigned last = n - d >= 16 ? 0xffffu : (1u << (n - d)) - 1;
    AddValues<kType, kQueries, 1>(*batch, values, ahead, n, d, static_cast<__mmask16>(last));
  }
}

template <KvType kType>
void AttendType(const AttendArgs& a) {
  const auto take = [](size_t left) {
    return left >= 8 ? size_t{8} : left > 4 ? (left + 1) / 2 : left;
  };
  AttendPages<kMaxTogether>(a, take, [&a](Batch* batch, const uint8_t* page, ptrdiff_t ahead) {
    if (batch->count == 1) return Page<kType, 1>(a, page, ahead, batch);
    if (batch->count == 2) return Page<kType, 2>(a, page, ahead, batch);
    if (batch->count == 3) return Page<kType, 3>(a, page, ahead, batch);
    if (batch->count == 4) return Page<kType, 4>(a, page, ahead, batch);
    Page<kType, 8>(a, page, ahead, batch);
  });
}

}  // namespace

void Attend(const AttendArgs& a) {
  if (a.type == KvType::kF32) return AttendType<KvType::kF32>(a);
  if (a.type == KvType::kF16) return AttendType<KvType::kF16>(a);
  AttendType<KvType::kQ8_0>(a);
}

}  // namespace efedllm::avx512
