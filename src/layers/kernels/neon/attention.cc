// Keys and values are both matrices whose rows are read once for up to four queries: keys have a
// row per dimension and a lane per position, values a row per position and a lane per dimension.
#include "layers/kernels/attend_pages.h"
#include "layers/kernels/neon/neon.h"

namespace efedllm::neon {
namespace {

constexpr int kVectors = kKvPage / 4;
constexpr size_t kMaxTogether = 4;

using Batch = AttendBatch<kMaxTogether>;

float32x4_t LoadHalves(const uint8_t* p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }

// Eight numbers to v[0] and v[1].
template <KvType kType>
void Load8(const uint8_t* p, float32x4_t* v) {
  if (kType == KvType::kF32) {
    v[0] = vreinterpretq_f32_u8(vld1q_u8(p));
    v[1] = vreinterpretq_f32_u8(vld1q_u8(p + 16));
  } else if (kType == KvType::kF16) {
    v[0] = LoadHalves(p);
    v[1] = LoadHalves(p + 8);
  } else {
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)));
    v[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
    v[1] = vcvtq_f32_s32(vmovl_high_s16(wide));
  }
}

float HalfAt(const uint8_t* p) {
  __fp16 half;
  __builtin_memcpy(&half, p, sizeof half);
  return half;
}

// p[q][i] = scale · (q · key i), for all 64 positions, seen or not; kWide vectors at a time. The
// same place of the next page lies `ahead` bytes on.
template <KvType kType, int kQueries, int kWide>
void Scores(const AttendArgs& a, const uint8_t* keys, ptrdiff_t ahead, Batch* batch) {
  constexpr size_t kBytes = KvNumberBytes(kType);
  const uint8_t* scales = keys + KvScalesAt(a.head_dim);
  for (int v = 0; v < kVectors; v += kWide) {
    float32x4_t acc[kQueries][kWide], scale[kWide];
    for (auto& query : acc) {
      for (float32x4_t& sum : query) sum = vdupq_n_f32(0);
    }
    for (size_t d = 0; d < a.head_dim; ++d) {
      const uint8_t* row = keys + (d * kKvPage + 4 * v) * kBytes;
      __builtin_prefetch(row + ahead);
      if (kType == KvType::kQ8_0 && d % kKvBlock == 0) {
        const uint8_t* from = scales + (d / kKvBlock * kKvPage + 4 * v) * 2;
        for (int j = 0; j < kWide; ++j) scale[j] = LoadHalves(from + 8 * j);
      }
      for (int j = 0; j < kWide; j += 2) {
        float32x4_t k[2];
        Load8<kType>(row + 4 * j * kBytes, k);
        for (int i = 0; i < 2; ++i) {
          if (kType == KvType::kQ8_0) k[i] = vmulq_f32(k[i], scale[j + i]);
          for (int q = 0; q < kQueries; ++q) {
            acc[q][j + i] = vfmaq_n_f32(acc[q][j + i], k[i], batch->queries[q].q[d]);
          }
        }
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      for (int j = 0; j < kWide; ++j) {
        vst1q_f32(batch->p[q] + 4 * (v + j), vmulq_n_f32(acc[q][j], a.scale));
      }
    }
  }
}

// All ones in the lanes of vector j that stand for positions [begin, end).
uint32x4_t SeenMask(uint32_t begin, uint32_t end, int j) {
  const uint32x4_t first = vcombine_u32(vcreate_u32(0x100000000u), vcreate_u32(0x300000002u));
  const uint32x4_t lane = vaddq_u32(first, vdupq_n_u32(static_cast<uint32_t>(4 * j)));
  return vandq_u32(vcgeq_u32(lane, vdupq_n_u32(begin)), vcltq_u32(lane, vdupq_n_u32(end)));
}

// Query q's scores to weights: 0 where it sees nothing.
void Weigh(float soft_cap, int q, Batch* batch) {
  float* p = batch->p[q];
  AttendRunning& running = batch->running[q];
  const uint32_t begin = batch->begin[q], end = batch->end[q];
  if (soft_cap != 0) SoftCap(p, kKvPage, soft_cap);
  float32x4_t max4 = vdupq_n_f32(running.max);
  for (int j = 0; j < kVectors; ++j) {
    max4 = vmaxq_f32(max4, vbslq_f32(SeenMask(begin, end, j), vld1q_f32(p + 4 * j), max4));
  }
  const float max = vmaxvq_f32(max4);
  float32x4_t partial[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
  for (int j = 0; j < kVectors; ++j) {
    const float32x4_t e = ExpVector(vsubq_f32(vld1q_f32(p + 4 * j), vdupq_n_f32(max)));
    const float32x4_t weight = vbslq_f32(SeenMask(begin, end, j), e, vdupq_n_f32(0));
    vst1q_f32(p + 4 * j, weight);
    partial[j % 2] = vaddq_f32(partial[j % 2], weight);
  }
  // Also right where nothing has been seen yet, and the maxima are -inf.
  const bool same = max == running.max;
  const float32x4_t factor = ExpVector(vdupq_n_f32(same ? 0.0f : running.max - max));
  batch->correction[q] = vgetq_lane_f32(factor, 0);
  running.sum = __builtin_fmaf(running.sum, batch->correction[q], Tree(partial[0], partial[1]));
  running.max = max;
}

// out[q][d + 0 … 4 · kWide) = out · correction + Σ p[q][i] · value i, over what any query sees:
// what another does not see, it weighs with 0.
template <KvType kType, int kQueries, int kWide>
void AddValues(const Batch& batch, const uint8_t* values, ptrdiff_t ahead, size_t head_dim,
               size_t d) {
  constexpr size_t kBytes = KvNumberBytes(kType);
  const uint8_t* scales = values + KvScalesAt(head_dim) + d / kKvBlock * 2;
  float32x4_t acc[kQueries][kWide];
  for (int q = 0; q < kQueries; ++q) {
    const float* out = batch.queries[q].out + d;
    for (int j = 0; j < kWide; ++j) {
      acc[q][j] = vmulq_n_f32(vld1q_f32(out + 4 * j), batch.correction[q]);
    }
  }
  for (size_t i = batch.first; i < batch.last; ++i) {
    const uint8_t* row = values + (i * head_dim + d) * kBytes;
    __builtin_prefetch(row + ahead);
    float32x4_t v[kWide];
    for (int j = 0; j < kWide; j += 2) Load8<kType>(row + 4 * j * kBytes, v + j);
    if (kType == KvType::kQ8_0) {
      const float scale = HalfAt(scales + i * (head_dim / kKvBlock) * 2);
      for (int j = 0; j < kWide; ++j) v[j] = vmulq_n_f32(v[j], scale);
    }
    for (int q = 0; q < kQueries; ++q) {
      for (int j = 0; j < kWide; ++j) acc[q][j] = vfmaq_n_f32(acc[q][j], v[j], batch.p[q][i]);
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    for (int j = 0; j < kWide; ++j) vst1q_f32(batch.queries[q].out + d + 4 * j, acc[q][j]);
  }
}

// The dimensions from d on, one by one. Q8_0 has none: its heads are whole blocks.
template <KvType kType, int kQueries>
void AddLastValues(const Batch& batch, const uint8_t* values, size_t head_dim, size_t d) {
  for (; d < head_dim; ++d) {
    for (int q = 0; q < kQueries; ++q) {
      float acc = batch.queries[q].out[d] * batch.correction[q];
      for (size_t i = batch.first; i < batch.last; ++i) {
        const uint8_t* p = values + (i * head_dim + d) * KvNumberBytes(kType);
        float v;
        if (kType == KvType::kF32) __builtin_memcpy(&v, p, sizeof v);
        if (kType != KvType::kF32) v = HalfAt(p);
        acc = __builtin_fmaf(batch.p[q][i], v, acc);
      }
      batch.queries[q].out[d] = acc;
    }
  }
}

template <KvType kType, int kQueries>
void Page(const AttendArgs& a, const uint8_t* page, ptrdiff_t ahead, Batch* batch) {
  constexpr int kWide = kQueries == 1 ? 16 : kQueries == 2 ? 8 : 4;
  Scores<kType, kQueries, kWide>(a, page + a.k_offset, ahead, batch);
  for (int q = 0; q < kQueries; ++q) Weigh(a.soft_cap, q, batch);
  const uint8_t* values = page + a.v_offset;
  const size_t n = a.head_dim;
  size_t d = 0;
  if (kQueries <= 2) {
    for (; d + 32 <= n; d += 32) AddValues<kType, kQueries, 8>(*batch, values, ahead, n, d);
  }
  for (; d + 16 <= n; d += 16) AddValues<kType, kQueries, 4>(*batch, values, ahead, n, d);
  for (; d + 8 <= n; d += 8) AddValues<kType, kQueries, 2>(*batch, values, ahead, n, d);
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

}  // namespace efedllm::neon
