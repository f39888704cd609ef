// Keys and values are both matrices whose rows are read once for up to four queries: keys have a
// row per dimension and a lane per position, values a row per position and a lane per dimension.
#include "layers/kernels/attend_pages.h"
#include "layers/kernels/avx2/avx2.h"

namespace efedllm::avx2 {
namespace {

constexpr int kVectors = kKvPage / 8;
constexpr size_t kMaxTogether = 4;

using Batch = AttendBatch<kMaxTogether>;

template <KvType kType>
__m256 Load8(const uint8_t* p) {
  if (kType == KvType::kF32) return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  if (kType == KvType::kF16) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

__m256 LoadHalves(const uint8_t* p) { return Load8<KvType::kF16>(p); }

__m256 BroadcastHalf(const uint8_t* p) {
  uint16_t half;
  __builtin_memcpy(&half, p, sizeof half);
  return _mm256_cvtph_ps(_mm_set1_epi16(static_cast<short>(half)));
}

// p[q][i] = scale · (q · key i), for all 64 positions, seen or not. The same place of the next page
// lies `ahead` bytes on; it is asked for into the second-level cache, which has room for two pages.
template <KvType kType, int kQueries, int kWide>
void Scores(const AttendArgs& a, const uint8_t* keys, ptrdiff_t ahead, Batch* batch) {
  constexpr size_t kBytes = KvNumberBytes(kType);
  const uint8_t* scales = keys + KvScalesAt(a.head_dim);
  for (int v = 0; v < kVectors; v += kWide) {
    __m256 acc[kQueries][kWide], scale[kWide];
    for (auto& query : acc) {
      for (__m256& sum : query) sum = _mm256_setzero_ps();
    }
    for (size_t d = 0; d < a.head_dim; ++d) {
      const uint8_t* row = keys + (d * kKvPage + 8 * v) * kBytes;
      __builtin_prefetch(row + ahead, 0, 2);
      __m256 k[kWide];
      if (kType == KvType::kQ8_0 && d % kKvBlock == 0) {
        const uint8_t* from = scales + (d / kKvBlock * kKvPage + 8 * v) * 2;
        for (int j = 0; j < kWide; ++j) scale[j] = LoadHalves(from + 16 * j);
      }
      for (int j = 0; j < kWide; ++j) {
        k[j] = Load8<kType>(row + 8 * j * kBytes);
        if (kType == KvType::kQ8_0) k[j] = _mm256_mul_ps(k[j], scale[j]);
      }
      for (int q = 0; q < kQueries; ++q) {
        const __m256 x = _mm256_broadcast_ss(batch->queries[q].q + d);
        for (int j = 0; j < kWide; ++j) acc[q][j] = _mm256_fmadd_ps(x, k[j], acc[q][j]);
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      for (int j = 0; j < kWide; ++j) {
        _mm256_store_ps(batch->p[q] + 8 * (v + j),
                        _mm256_mul_ps(acc[q][j], _mm256_set1_ps(a.scale)));
      }
    }
  }
}

// All ones in the lanes of vector j that stand for positions [begin, end).
__m256 SeenMask(uint32_t begin, uint32_t end, int j) {
  const __m256i lane =
      _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(8 * j));
  const __m256i before = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(begin)), lane);
  const __m256i up_to = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(end)), lane);
  return _mm256_castsi256_ps(_mm256_andnot_si256(before, up_to));
}

float MaxOf(__m256 v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// Query q's scores to weights: 0 where it sees nothing. kAll: it sees the whole page.
template <bool kAll>
void Weigh(float soft_cap, int q, Batch* batch) {
  float* p = batch->p[q];
  AttendRunning& running = batch->running[q];
  const uint32_t begin = batch->begin[q], end = batch->end[q];
  if (soft_cap != 0) SoftCap(p, kKvPage, soft_cap);
  __m256 max8 = _mm256_set1_ps(running.max);
  for (int j = 0; j < kVectors; ++j) {
    __m256 s = _mm256_load_ps(p + 8 * j);
    if (!kAll) s = _mm256_blendv_ps(max8, s, SeenMask(begin, end, j));
    max8 = _mm256_max_ps(max8, s);
  }
  const float max = MaxOf(max8);
  __m256 partial = _mm256_setzero_ps();
  for (int j = 0; j < kVectors; ++j) {
    __m256 weight = ExpVector(_mm256_sub_ps(_mm256_load_ps(p + 8 * j), _mm256_set1_ps(max)));
    if (!kAll) weight = _mm256_and_ps(weight, SeenMask(begin, end, j));
    _mm256_store_ps(p + 8 * j, weight);
    partial = _mm256_add_ps(partial, weight);
  }
  batch->correction[q] = 1;  // e^0, also where nothing has been seen yet and the maxima are -inf
  if (max != running.max) {
    const __m256 factor = ExpVector(_mm256_set1_ps(running.max - max));
    batch->correction[q] = _mm256_cvtss_f32(factor);
  }
  running.sum = __builtin_fmaf(running.sum, batch->correction[q], Tree(partial));
  running.max = max;
}

// out[q][d + 0 … 8 · kWide) = out · correction + Σ p[q][i] · value i, over what any query sees:
// what another does not see, it weighs with 0.
template <KvType kType, int kQueries, int kWide>
void AddValues(const Batch& batch, const uint8_t* values, ptrdiff_t ahead, size_t head_dim,
               size_t d) {
  constexpr size_t kBytes = KvNumberBytes(kType);
  const uint8_t* scales = values + KvScalesAt(head_dim) + d / kKvBlock * 2;
  __m256 acc[kQueries][kWide];
  for (int q = 0; q < kQueries; ++q) {
    for (int j = 0; j < kWide; ++j) {
      acc[q][j] = _mm256_mul_ps(_mm256_loadu_ps(batch.queries[q].out + d + 8 * j),
                                _mm256_set1_ps(batch.correction[q]));
    }
  }
  for (size_t i = batch.first; i < batch.last; ++i) {
    const uint8_t* row = values + (i * head_dim + d) * kBytes;
    __builtin_prefetch(row + ahead, 0, 2);
    __m256 v[kWide];
    for (int j = 0; j < kWide; ++j) v[j] = Load8<kType>(row + 8 * j * kBytes);
    if (kType == KvType::kQ8_0) {
      const __m256 scale = BroadcastHalf(scales + i * (head_dim / kKvBlock) * 2);
      for (int j = 0; j < kWide; ++j) v[j] = _mm256_mul_ps(v[j], scale);
    }
    for (int q = 0; q < kQueries; ++q) {
      const __m256 weight = _mm256_broadcast_ss(batch.p[q] + i);
      for (int j = 0; j < kWide; ++j) acc[q][j] = _mm256_fmadd_ps(weight, v[j], acc[q][j]);
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    for (int j = 0; j < kWide; ++j) {
      _mm256_storeu_ps(batch.queries[q].out + d + 8 * j, acc[q][j]);
    }
  }
}

// The dimensions from d on, one by one.
template <KvType kType, int kQueries>
void AddLastValues(const Batch& batch, const uint8_t* values, size_t head_dim, size_t d) {
  for (; d < head_dim; ++d) {
    for (int q = 0; q < kQueries; ++q) {
      float acc = batch.queries[q].out[d] * batch.correction[q];
      for (size_t i = batch.first; i < batch.last; ++i) {
        const uint8_t* p = values + (i * head_dim + d) * KvNumberBytes(kType);
        float v;
        if (kType == KvType::kF32) __builtin_memcpy(&v, p, sizeof v);
        if (kType != KvType::kF32) v = _mm256_cvtss_f32(BroadcastHalf(p));
        acc = __builtin_fmaf(batch.p[q][i], v, acc);
      }
      batch.queries[q].out[d] = acc;
    }
  }
}

template <KvType kType, int kQueries>
void Page(const AttendArgs& a, const uint8_t* page, ptrdiff_t ahead, Batch* batch) {
  constexpr int kWide = kQueries == 1 ? 8 : kQueries == 2 ? 4 : 2;
  Scores<kType, kQueries, kWide>(a, page + a.k_offset, ahead, batch);
  for (int q = 0; q < kQueries; ++q) {
    const bool all = batch->begin[q] == 0 && batch->end[q] == kKvPage;
    all ? Weigh<true>(a.soft_cap, q, batch) : Weigh<false>(a.soft_cap, q, batch);
  }
  const uint8_t* values = page + a.v_offset;
  const size_t n = a.head_dim;
  size_t d = 0;
  if (kQueries <= 2) {
    for (; d + 32 <= n; d += 32) AddValues<kType, kQueries, 4>(*batch, values, ahead, n, d);
  }
  for (; d + 16 <= n; d += 16) AddValues<kType, kQueries, 2>(*batch, values, ahead, n, d);
  for (; d + 8 <= n; d += 8) AddValues<kType, kQueries, 1>(*batch, values, ahead, n, d);
  AddLastValues<kType, kQueries>(*batch, values, n, d);
}

template <KvType kType>
void AttendType(const AttendArgs& a) {
  const auto take = [](size_t left) {
    return left == 5 ? 3 : left < kMaxTogether ? left : kMaxTogether;  // 3 + 2, not 4 + 1
  };
  AttendPages<kMaxTogether>(a, take, [&a](Batch* batch, const uint8_t* page, ptrdiff_t ahead) {
    if (batch->count == 1) return Page<kType, 1>(a, page, ahead, batch);
    if (batch->count == 2) return Page<kType, 2>(a, page, ahead, batch);
    if (batch->count == 3) return Page<kType, 3>(a, page, ahead, batch);
    Page<kType, 4>(a, page, ahead, batch);
  });
}

}  // namespace

void Attend(const AttendArgs& a) {
  if (a.type == KvType::kF32) return AttendType<KvType::kF32>(a);
  if (a.type == KvType::kF16) return AttendType<KvType::kF16>(a);
  AttendType<KvType::kQ8_0>(a);
}

}  // namespace efedllm::avx2
