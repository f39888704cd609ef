#include "layers/kernels/avx2/avx2.h"

namespace efedllm::avx2 {
namespace {

__m256 Silu(__m256 x) {
  const __m256 e = ExpVector(_mm256_xor_ps(x, _mm256_set1_ps(-0.0f)));
  return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

__m256 Gelu(__m256 g) {
  const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(g, g), g);
  const __m256 inner = _mm256_fmadd_ps(_mm256_set1_ps(kGeluCubic), cube, g);
  const __m256 tanh = TanhVector(_mm256_mul_ps(_mm256_set1_ps(kGeluScale), inner));
  return _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(0.5f), g),
                       _mm256_add_ps(_mm256_set1_ps(1.0f), tanh));
}

// gate = activation(gate) · up.
template <__m256 (*kActivation)(__m256)>
void GateMul(float* gate, const float* up, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 g = kActivation(_mm256_loadu_ps(gate + i));
    _mm256_storeu_ps(gate + i, _mm256_mul_ps(g, _mm256_loadu_ps(up + i)));
  }
  if (i < n) {
    const __m256 g = kActivation(LoadTail(gate + i, n - i));
    StoreTail(gate + i, n - i, _mm256_mul_ps(g, LoadTail(up + i, n - i)));
  }
}

__m256 Capped(__m256 x, __m256 cap) {
  return _mm256_mul_ps(cap, TanhVector(_mm256_div_ps(x, cap)));
}

__m128i HalvesOf(__m256 x) {
  const __m256 max = _mm256_set1_ps(kF16Max), min = _mm256_set1_ps(-kF16Max);
  return _mm256_cvtps_ph(_mm256_max_ps(_mm256_min_ps(x, max), min), _MM_FROUND_TO_NEAREST_INT);
}

float MaxOf(__m256 v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// The sum of 16 int8.
int SumOf(__m128i q) {
  const __m128i pairs = _mm_sad_epu8(_mm_xor_si128(q, _mm_set1_epi8(-128)), _mm_setzero_si128());
  return _mm_cvtsi128_si32(pairs) + _mm_extract_epi16(pairs, 4) - 16 * 128;
}

}  // namespace

void Exp(const float* x, size_t n, float* y) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, ExpVector(_mm256_loadu_ps(x + i)));
  if (i < n) StoreTail(y + i, n - i, ExpVector(LoadTail(x + i, n - i)));
}

void SiluMul(float* gate, const float* up, size_t n) { GateMul<Silu>(gate, up, n); }
void GeluMul(float* gate, const float* up, size_t n) { GateMul<Gelu>(gate, up, n); }

void SoftCap(float* x, size_t n, float cap) {
  const __m256 caps = _mm256_set1_ps(cap);
  size_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, Capped(_mm256_loadu_ps(x + i), caps));
  if (i < n) StoreTail(x + i, n - i, Capped(LoadTail(x + i, n - i), caps));
}

void ToF16(const float* x, size_t n, uint16_t* out) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), HalvesOf(_mm256_loadu_ps(x + i)));
  }
  if (i < n) {
    const __m128i halves = HalvesOf(LoadTail(x + i, n - i));
    __builtin_memcpy(out + i, &halves, (n - i) * sizeof(uint16_t));
  }
}

void Add(float* x, const float* y, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(x + i, _mm256_add_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
  }
  for (; i < n; ++i) x[i] += y[i];
}

void AddScaled(float* y, const float* x, size_t n, float scale) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    _mm256_storeu_ps(y + i, _mm256_fmadd_ps(v, _mm256_set1_ps(scale), _mm256_loadu_ps(y + i)));
  }
  for (; i < n; ++i) y[i] = __builtin_fmaf(x[i], scale, y[i]);
}

void RmsNorm(const float* x, const float* weight, size_t n, float epsilon, float* y) {
  __m256 partial = _mm256_setzero_ps();
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    partial = _mm256_fmadd_ps(v, v, partial);
  }
  if (i < n) {  // the zeros behind the tail add nothing
    const __m256 v = LoadTail(x + i, n - i);
    partial = _mm256_fmadd_ps(v, v, partial);
  }
  const float mean = Tree(partial) / static_cast<float>(n);
  const float scale = 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + epsilon)));
  for (i = 0; i + 8 <= n; i += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale));
    _mm256_storeu_ps(y + i, _mm256_mul_ps(scaled, _mm256_loadu_ps(weight + i)));
  }
  for (; i < n; ++i) y[i] = x[i] * scale * weight[i];
}

void Rope(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos,
          const float* sin) {
  for (size_t h = 0; h < heads; ++h, x += head_dim) {
    size_t i = 0;
    for (; i + 8 <= dims; i += 8) {
      const __m256 v = _mm256_loadu_ps(x + i);
      const __m256 swapped = _mm256_permute_ps(v, 0xb1);
      const __m256 crossed = _mm256_mul_ps(swapped, _mm256_loadu_ps(sin + i));
      _mm256_storeu_ps(x + i, _mm256_fmaddsub_ps(v, _mm256_loadu_ps(cos + i), crossed));
    }
    for (; i < dims; i += 2) {
      const float a = x[i], b = x[i + 1];
      x[i] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
      x[i + 1] = __builtin_fmaf(b, cos[i + 1], a * sin[i + 1]);
    }
  }
}

void RopeHalves(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos,
                const float* sin) {
  const size_t half = dims / 2;
  for (size_t h = 0; h < heads; ++h, x += head_dim) {
    size_t i = 0;
    for (; i + 8 <= half; i += 8) {
      const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + half + i);
      const __m256 b_sin = _mm256_mul_ps(b, _mm256_loadu_ps(sin + i));
      const __m256 a_sin = _mm256_mul_ps(a, _mm256_loadu_ps(sin + half + i));
      _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, _mm256_loadu_ps(cos + i), b_sin));
      _mm256_storeu_ps(x + half + i, _mm256_fmadd_ps(b, _mm256_loadu_ps(cos + half + i), a_sin));
    }
    for (; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
      x[i + half] = __builtin_fmaf(b, cos[i + half], a * sin[i + half]);
    }
  }
}

void Quantize(const float* x, size_t blocks, QuantBlock* out) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  // Packing works within 128-bit halves; this puts the groups of four back in order.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (size_t b = 0; b < blocks; ++b, x += kQuantValues) {
    __m256 v[4], amax8 = _mm256_setzero_ps();
    for (int j = 0; j < 4; ++j) {
      v[j] = _mm256_loadu_ps(x + 8 * j);
      amax8 = _mm256_max_ps(amax8, _mm256_andnot_ps(sign, v[j]));
    }
    const float amax = MaxOf(amax8);
    const bool zero = amax < kQuantMin;
    const __m256 inverse = _mm256_set1_ps(zero ? 0.0f : 127.0f / amax);
    __m256i q[4];
    for (int j = 0; j < 4; ++j) q[j] = _mm256_cvtps_epi32(_mm256_mul_ps(v[j], inverse));
    const __m256i packed = _mm256_permutevar8x32_epi32(
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3])), order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out[b].q), packed);
    out[b].d = zero ? 0.0f : amax / 127.0f;
    out[b].sum[0] = static_cast<int16_t>(SumOf(_mm256_castsi256_si128(packed)));
    out[b].sum[1] = static_cast<int16_t>(SumOf(_mm256_extracti128_si256(packed, 1)));
    out[b].offset = -128 * (out[b].sum[0] + out[b].sum[1]);
  }
}

}  // namespace efedllm::avx2
