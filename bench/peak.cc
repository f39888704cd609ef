// The machine's roof for prompts: int8 products per second of one core, from registers alone.
//   peak_bench  ->  {"instructions": "vpdpbusd", "int8_ops_per_second": 7.3e+11}
// A product and its addition are two operations.
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace {

constexpr int kLoops = 5'000'000;
constexpr int kSums = 12;  // in flight, more than the latency needs
constexpr int kRuns = 5;

// 64 products an instruction.
__attribute__((target("avx512f,avx512vnni"))) int Vnni() {
  __m512i sums[kSums];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  const __m512i weights = _mm512_set1_epi8(3), x = _mm512_set1_epi8(5);
  for (int i = 0; i < kLoops; ++i) {
    for (__m512i& sum : sums) {
      sum = _mm512_dpbusd_epi32(sum, weights, x);
      asm volatile("" : "+v"(sum));  // none may be left out
    }
  }
  return kSums * 64;
}

// 32 products by three instructions.
__attribute__((target("avx2"))) int Avx2() {
  __m256i sums[kSums];
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  __m256i weights = _mm256_set1_epi8(3);
  const __m256i x = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
  for (int i = 0; i < kLoops; ++i) {
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(weights));
      const __m256i pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(weights, x), ones);
      sum = _mm256_add_epi32(sum, pairs);
      asm volatile("" : "+x"(sum));
    }
  }
  return kSums * 32;
}

}  // namespace

int main() {
  const bool vnni = __builtin_cpu_supports("avx512vnni") != 0;
  if (!vnni && __builtin_cpu_supports("avx2") == 0) {
    std::fprintf(stderr, "peak_bench: this CPU has neither AVX-512 VNNI nor AVX2\n");
    return 1;
  }
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    const int products = vnni ? Vnni() : Avx2();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2.0 * products * kLoops / took.count());
  }
  std::printf("{\"instructions\": \"%s\", \"int8_ops_per_second\": %.4g}\n",
              vnni ? "vpdpbusd" : "vpmaddubsw", best);
  return 0;
}
