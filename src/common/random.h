// Randomness: secrets from the kernel, everything else from a seed that a test can print.
#ifndef EFEDLLM_COMMON_RANDOM_H_
#define EFEDLLM_COMMON_RANDOM_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace efedllm {

// n bytes that nobody can guess (getrandom). Aborts if the kernel has none.
std::string SecureRandomBytes(size_t n);
uint64_t SecureRandomU64();

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers from the same seed on every machine. Not
// for secrets.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Uniform in [0, n), n > 0. The bias is below n / 2^64.
  uint64_t Below(uint64_t n) { return static_cast<uint64_t>((__uint128_t{Next()} * n) >> 64); }
  // Uniform in [0, 1), 53 bits.
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_RANDOM_H_
