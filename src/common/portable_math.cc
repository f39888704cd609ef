#include "common/portable_math.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace efedllm {
namespace {

constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
// pi/2 in three doubles.
constexpr double kHalfPi1 = 0x1.921fb54442d18p+0;
constexpr double kHalfPi2 = 0x1.1a62633145c07p-54;
constexpr double kHalfPi3 = -0x1.f1976b7ed8fbcp-110;
constexpr double kRoundToInt = 0x1.8p52;  // adding it rounds to an integer

double RoundToInt(double x) { return (x + kRoundToInt) - kRoundToInt; }

// sin(r) and cos(r) by Taylor's series for |r| <= pi/4.
double SinSeries(double r) {
  const double r2 = r * r;
  double p = 0;
  for (int n = 17; n >= 3; n -= 2) p = std::fma(p, r2, 1.0) * -1.0 / (n * (n - 1));
  // p·r² = sin(r)/r - 1
  return std::fma(p * r2, r, r);
}

double CosSeries(double r) {
  const double r2 = r * r;
  double p = 0;
  for (int n = 18; n >= 2; n -= 2) p = std::fma(p, r2, 1.0) * -1.0 / (n * (n - 1));
  return std::fma(p, r2, 1.0);
}

}  // namespace

double PortableExp(double x) {
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

double PortableLog(double x) {
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

double PortablePow(double base, double exponent) {
  return PortableExp(exponent * PortableLog(base));
}

void PortableSinCos(double angle, double* sin, double* cos) {
  const double k = RoundToInt(angle * kTwoOverPi);
  double r = std::fma(-k, kHalfPi1, angle);
  r = std::fma(-k, kHalfPi2, r);
  r = std::fma(-k, kHalfPi3, r);
  const double s = SinSeries(r), c = CosSeries(r);
  switch (static_cast<int64_t>(k) & 3) {
    case 0:
      *sin = s, *cos = c;
      return;
    case 1:
      *sin = c, *cos = -s;
      return;
    case 2:
      *sin = -s, *cos = -c;
      return;
    default:
      *sin = -c, *cos = s;
  }
}

}  // namespace efedllm
