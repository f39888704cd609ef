// Stands in for the compiler's header, to run AVX-512 kernels on CPUs without it: SIMDe's portable
// intrinsics, and here those that its release lacks, gets wrong or doesn't round once. Only for
// tests/emulated_avx512.
#ifndef EFEDLLM_TESTS_EMULATED_AVX512_IMMINTRIN_H_
#define EFEDLLM_TESTS_EMULATED_AVX512_IMMINTRIN_H_

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

using __mmask16 = simde__mmask16;
using __mmask32 = simde__mmask32;

namespace emulated {
namespace {  // the linker must not share what has these ISA flags

// Lane i of the result is lane(i).
template <class Lane>
inline simde__m512 Floats(const Lane& lane) {
  simde__m512_private r;
  for (int i = 0; i < 16; ++i) r.f32[i] = lane(i);
  return simde__m512_from_private(r);
}
template <class Lane>
inline simde__m512i Ints(const Lane& lane) {
  simde__m512i_private r;
  for (int i = 0; i < 16; ++i) r.i32[i] = lane(i);
  return simde__m512i_from_private(r);
}
template <class Word>
inline simde__m512i Words(const Word& word) {
  simde__m512i_private r;
  for (int i = 0; i < 32; ++i) r.u16[i] = static_cast<uint16_t>(word(i));
  return simde__m512i_from_private(r);
}
inline simde__m512_private Of(simde__m512 v) { return simde__m512_to_private(v); }
inline simde__m512i_private Of(simde__m512i v) { return simde__m512i_to_private(v); }
inline simde__m256i_private Of(simde__m256i v) { return simde__m256i_to_private(v); }
inline simde__m128i_private Of(simde__m128i v) { return simde__m128i_to_private(v); }

// Exact: a half has no bit that a float lacks.
inline float FloatOfHalf(uint16_t h) {
  const float sign = (h & 0x8000) != 0 ? -1.0f : 1.0f;
  const int exponent = h >> 10 & 31, fraction = h & 0x3ff;
  if (exponent == 31) return fraction != 0 ? __builtin_nanf("") : sign * __builtin_inff();
  if (exponent == 0) return sign * __builtin_ldexpf(static_cast<float>(fraction), -24);
  return sign * __builtin_ldexpf(static_cast<float>(fraction + 1024), exponent - 25);
}

inline simde__m512 Fma(simde__m512 a, simde__m512 b, simde__m512 c, float sign) {
  const auto x = Of(a), y = Of(b), z = Of(c);
  return Floats([&](int i) { return __builtin_fmaf(sign * x.f32[i], y.f32[i], z.f32[i]); });
}
inline simde__m256 Fma(simde__m256 a, simde__m256 b, simde__m256 c, float sign) {
  const auto x = simde__m256_to_private(a), y = simde__m256_to_private(b);
  auto r = simde__m256_to_private(c);
  for (int i = 0; i < 8; ++i) r.f32[i] = __builtin_fmaf(sign * x.f32[i], y.f32[i], r.f32[i]);
  return simde__m256_from_private(r);
}
inline simde__m512 CvtEpi32Ps(simde__m512i a) {
  const auto x = Of(a);
  return Floats([&](int i) { return static_cast<float>(x.i32[i]); });
}
inline simde__m512i CvtEpi8Epi32(simde__m128i a) {
  const auto x = Of(a);
  return Ints([&](int i) { return int32_t{x.i8[i]}; });
}
inline simde__m512i CvtEpu8Epi32(simde__m128i a) {
  const auto x = Of(a);
  return Ints([&](int i) { return int32_t{x.u8[i]}; });
}
inline simde__m512i CvtEpu16Epi32(simde__m256i a) {
  const auto x = Of(a);
  return Ints([&](int i) { return int32_t{x.u16[i]}; });
}
inline simde__m512i CvtEpu8Epi16(simde__m256i a) {
  const auto x = Of(a);
  return Words([&](int i) { return x.u8[i]; });
}
inline simde__m512 CvtPhPs(simde__m256i a) {
  const auto x = Of(a);
  return Floats([&](int i) { return FloatOfHalf(x.u16[i]); });
}
inline simde__m512i SraiEpi32(simde__m512i a, int n) {
  const auto x = Of(a);
  return Ints([&](int i) { return x.i32[i] >> n; });
}
inline simde__m512i SlliEpi16(simde__m512i a, int n) {
  const auto x = Of(a);
  return Words([&](int i) { return x.u16[i] << n; });
}
inline simde__m512i SrliEpi16(simde__m512i a, int n) {
  const auto x = Of(a);
  return Words([&](int i) { return x.u16[i] >> n; });
}
inline simde__m512i MaddEpi16(simde__m512i a, simde__m512i b) {
  const auto x = Of(a), y = Of(b);
  return Ints(
      [&](int i) { return x.i16[2 * i] * y.i16[2 * i] + x.i16[2 * i + 1] * y.i16[2 * i + 1]; });
}
inline simde__m256 ExtractF32x8(simde__m512 a, int half) { return Of(a).m256[half]; }
inline float ReduceMaxPs(simde__m512 a) {
  const auto x = Of(a);
  float max = x.f32[0];
  for (int i = 1; i < 16; ++i) max = x.f32[i] > max ? x.f32[i] : max;
  return max;
}
inline simde__m512 MaskzLoaduPs(uint16_t mask, const void* p) {
  const auto* from = static_cast<const float*>(p);
  return Floats([&](int i) { return (mask >> i & 1) != 0 ? from[i] : 0.0f; });
}
inline void MaskStoreuPs(void* p, uint16_t mask, simde__m512 a) {
  const auto x = Of(a);
  for (int i = 0; i < 16; ++i) {
    if ((mask >> i & 1) != 0) static_cast<float*>(p)[i] = x.f32[i];
  }
}
inline simde__m256i MaskzLoaduEpi16(uint16_t mask, const void* p) {
  simde__m256i_private r;
  for (int i = 0; i < 16; ++i) {
    r.i16[i] = (mask >> i & 1) != 0 ? static_cast<const int16_t*>(p)[i] : int16_t{0};
  }
  return simde__m256i_from_private(r);
}

}  // namespace
}  // namespace emulated

#undef _mm256_fmadd_ps
#undef _mm256_fnmadd_ps
#undef _mm512_fmadd_ps
#undef _mm512_fnmadd_ps
#undef _mm512_madd_epi16
#define _mm512_madd_epi16(a, b) emulated::MaddEpi16(a, b)
#undef _mm512_slli_epi16
#undef _mm512_srli_epi16
#define _mm512_slli_epi16(a, n) emulated::SlliEpi16(a, n)
#define _mm512_srli_epi16(a, n) emulated::SrliEpi16(a, n)
#define _mm256_fmadd_ps(a, b, c) emulated::Fma(a, b, c, 1)
#define _mm256_fnmadd_ps(a, b, c) emulated::Fma(a, b, c, -1)
#define _mm512_fmadd_ps(a, b, c) emulated::Fma(a, b, c, 1)
#define _mm512_fnmadd_ps(a, b, c) emulated::Fma(a, b, c, -1)
#define _mm512_cvtepi32_ps(a) emulated::CvtEpi32Ps(a)
#define _mm512_cvtepi8_epi32(a) emulated::CvtEpi8Epi32(a)
#define _mm512_cvtepu8_epi32(a) emulated::CvtEpu8Epi32(a)
#define _mm512_cvtepu16_epi32(a) emulated::CvtEpu16Epi32(a)
#define _mm512_cvtepu8_epi16(a) emulated::CvtEpu8Epi16(a)
#define _mm512_cvtph_ps(a) emulated::CvtPhPs(a)
#define _mm512_srai_epi32(a, n) emulated::SraiEpi32(a, n)
#define _mm512_extractf32x8_ps(a, half) emulated::ExtractF32x8(a, half)
#define _mm512_reduce_max_ps(a) emulated::ReduceMaxPs(a)
#define _mm512_maskz_loadu_ps(mask, p) emulated::MaskzLoaduPs(mask, p)
#define _mm512_mask_storeu_ps(p, mask, a) emulated::MaskStoreuPs(p, mask, a)
#define _mm256_maskz_loadu_epi16(mask, p) emulated::MaskzLoaduEpi16(mask, p)

#endif  // EFEDLLM_TESTS_EMULATED_AVX512_IMMINTRIN_H_
