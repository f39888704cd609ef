#include "layers/exact_math.h"

#include <bit>
#include <cmath>
#include <cstdint>

namespace efedllm {
namespace {

constexpr double kLn2High = 0x1.62e42fefa3800p-1;  // 42 bits: n·kLn2High is exact
constexpr double kLn2Low = 0x1.ef35793c76730p-45;
constexpr double kLog2E = 0x1.71547652b82fep+0;
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

double ExactLog(double x) {
  uint64_t bits = std::bit_cast<uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffu) | 0x3ff0000000000000u);
  if (m > 0x1.6a09e667f3bcdp+0) {  // keep m within [1/sqrt(2), sqrt(2)]
    m *= 0.5;
    ++exponent;
  }
  // ln m = 2·(s + s³/3 + s⁵/5 + …), s = (m - 1)/(m + 1)
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
  double p = 0;
  for (int n = 25; n >= 3; n -= 2) p = std::fma(p, s2, 1.0 / n);
  const double log_m = 2.0 * std::fma(p * s2, s, s);
  return std::fma(exponent, kLn2High, std::fma(exponent, kLn2Low, log_m));
}

double ExactExp(double x) {
  const double n = RoundToInt(x * kLog2E);
  const double r = std::fma(-n, kLn2Low, std::fma(-n, kLn2High, x));
  double p = 1.0;
  for (int i = 14; i >= 1; --i) p = std::fma(p * r, 1.0 / i, 1.0);
  const int64_t biased = static_cast<int64_t>(n) + 1023;
  return p * std::bit_cast<double>(static_cast<uint64_t>(biased) << 52);
}

double ExactPow(double base, double exponent) { return ExactExp(exponent * ExactLog(base)); }

void ExactSinCos(double angle, double* sin, double* cos) {
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
