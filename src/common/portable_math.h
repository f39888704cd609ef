// exp and ln in double, as fixed sequences of +, -, *, / and bit operations: the same bits on every
// CPU and C library, which std::exp and std::log don't promise. Error below 2 units in the last
// place. (Compiled with -ffp-contract=off, as everything here is.)
#ifndef EFEDLLM_COMMON_PORTABLE_MATH_H_
#define EFEDLLM_COMMON_PORTABLE_MATH_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace efedllm {

// e^x. 0 below -708 (where the result would be denormal), infinity above 709. NaN stays NaN.
inline double PortableExp(double x) {
  if (std::isnan(x)) return x;
  if (x < -708) return 0;
  if (x > 709) return std::numeric_limits<double>::infinity();
  // x = n ln 2 + r, |r| <= ln 2 / 2; ln 2 in two parts, the first short enough that n times it is
  // exact.
  const double n = std::floor(x * 0x1.71547652b82fep0 + 0.5);
  const double r = (x - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;
  // e^r by its Taylor series to r^13 / 13!.
  constexpr double kInverseFactorials[] = {1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0,
                                           1.0 / 3628800.0,    1.0 / 362880.0,    1.0 / 40320.0,
                                           1.0 / 5040.0,       1.0 / 720.0,       1.0 / 120.0,
                                           1.0 / 24.0,         1.0 / 6.0,         0.5};
  double sum = 0;
  for (const double coefficient : kInverseFactorials) sum = sum * r + coefficient;
  const double e_r = 1 + (r + r * r * sum);
  const uint64_t bits = static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52;
  double two_n;
  std::memcpy(&two_n, &bits, sizeof two_n);
  return e_r * two_n;
}

// ln x for a normal x > 0; minus infinity for 0 and denormals, NaN for what is negative or NaN.
inline double PortableLog(double x) {
  if (std::isnan(x) || x < 0) return std::numeric_limits<double>::quiet_NaN();
  if (x < std::numeric_limits<double>::min()) return -std::numeric_limits<double>::infinity();
  if (std::isinf(x)) return x;
  // x = m 2^e with m in [sqrt 1/2, sqrt 2).
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  int64_t e = static_cast<int64_t>(bits >> 52) - 1023;
  bits = (bits & 0xfffffffffffffu) | uint64_t{1023} << 52;
  double m;
  std::memcpy(&m, &bits, sizeof m);
  if (m > 0x1.6a09e667f3bcdp0) {
    m *= 0.5;
    ++e;
  }
  // ln m = 2 atanh(s), s = (m - 1) / (m + 1): 2 (s + s^3/3 + s^5/5 + ...), |s| < 0.172.
  const double s = (m - 1) / (m + 1);
  const double z = s * s;
  double sum = 0;
  for (int odd = 23; odd >= 3; odd -= 2) sum = (sum + 1.0 / odd) * z;
  const double n = static_cast<double>(e);
  return n * 0x1.62e42fee00000p-1 + (n * 0x1.a39ef35793c76p-33 + (2 * s + 2 * s * sum));
}

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_PORTABLE_MATH_H_
