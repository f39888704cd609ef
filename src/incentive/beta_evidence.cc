#include "incentive/beta_evidence.h"

#include <algorithm>
#include <cmath>

#include "common/portable_math.h"

namespace efedllm {
namespace {

constexpr double kHalfLogTwoPi = 0.91893853320467274178;
constexpr double kLogTwo = 0.69314718055994530942;
constexpr int kMostQuantileSteps = 100;
constexpr double kQuantileWidth = 0x1p-40;

// The continued fraction of I_x(a, b) by Lentz's method (Press et al., Numerical Recipes, 6.4),
// which converges in O(sqrt(max(a, b))) terms for x < (a + 1) / (a + b + 2).
double ContinuedFraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  constexpr int kMostTerms = 100'000;
  const auto away_from_zero = [](double v) { return std::fabs(v) < kTiny ? kTiny : v; };
  double c = 1;
  double d = 1 / away_from_zero(1 - (a + b) * x / (a + 1));
  double h = d;
  for (int i = 1; i <= kMostTerms; ++i) {
    const double m = i;
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away_from_zero(1 + even * d);
    c = away_from_zero(1 + even / c);
    h *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away_from_zero(1 + odd * d);
    c = away_from_zero(1 + odd / c);
    h *= d * c;
    if (std::fabs(d * c - 1) < 1e-14) break;
  }
  return h;
}

double LogBeta(double a, double b) {
  return PortableLogGamma(a) + PortableLogGamma(b) - PortableLogGamma(a + b);
}

// x in (0, 1).
double Distribution(double a, double b, double log_beta, double x) {
  const double front = PortableExp(a * PortableLog(x) + b * PortableLog(1 - x) - log_beta);
  if (x < (a + 1) / (a + b + 2)) return front * ContinuedFraction(a, b, x) / a;
  return 1 - front * ContinuedFraction(b, a, 1 - x) / b;
}

double Sane(double weight) { return weight > 0 ? std::min(weight, kMostEvidence) : 0; }

}  // namespace

double PortableLogGamma(double x) {
  // Stirling's series where it is exact enough, reached by Gamma(x + 1) = x Gamma(x).
  double below = 0;
  while (x < 10) {
    below += PortableLog(x);
    x += 1;
  }
  const double r = 1 / x;
  const double r2 = r * r;
  const double series =
      r * (1.0 / 12 +
           r2 * (-1.0 / 360 +
                 r2 * (1.0 / 1260 + r2 * (-1.0 / 1680 + r2 * (1.0 / 1188 - r2 * 691.0 / 360360)))));
  return (x - 0.5) * PortableLog(x) - x + kHalfLogTwoPi + series - below;
}

double BetaDistribution(double a, double b, double x) {
  if (!(x > 0)) return 0;
  if (x >= 1) return 1;
  return Distribution(a, b, LogBeta(a, b), x);
}

double BetaQuantile(double a, double b, double quantile) {
  // One of them closed: I_x(a, 1) = x^a.
  if (b == 1) return PortableExp(PortableLog(quantile) / a);
  // Newton's method, and bisection where it would leave what is known to hold the root.
  const double log_beta = LogBeta(a, b);
  double below = 0, above = 1;
  double x = a / (a + b);
  for (int i = 0; i < kMostQuantileSteps && above - below > kQuantileWidth; ++i) {
    const double error = Distribution(a, b, log_beta, x) - quantile;
    (error <= 0 ? below : above) = x;
    const double density =
        PortableExp((a - 1) * PortableLog(x) + (b - 1) * PortableLog(1 - x) - log_beta);
    const double step = error / density;
    if (step > -kQuantileWidth && step < kQuantileWidth) break;
    const double next = x - step;
    // NaN and infinities are outside, too.
    x = next > below && next < above ? next : 0.5 * (below + above);
  }
  return x;
}

BetaEvidence Forget(const BetaEvidence& evidence, double seconds, double half_life_seconds) {
  if (!(seconds > 0) || !(half_life_seconds > 0)) return evidence;
  const double left = PortableExp(-kLogTwo * seconds / half_life_seconds);
  return {evidence.good * left, evidence.bad * left};
}

BetaEvidence Add(const BetaEvidence& evidence, double good, double bad) {
  BetaEvidence sum{Sane(evidence.good) + Sane(good), Sane(evidence.bad) + Sane(bad)};
  const double most = std::max(sum.good, sum.bad);
  if (most > kMostEvidence) {
    sum.good *= kMostEvidence / most;
    sum.bad *= kMostEvidence / most;
  }
  return sum;
}

double LowerBound(const BetaEvidence& evidence, double prior, double quantile) {
  return BetaQuantile(Sane(evidence.good) + std::max(prior, 1.0), Sane(evidence.bad) + 1, quantile);
}

double Mean(const BetaEvidence& evidence, double prior) {
  const double good = Sane(evidence.good) + std::max(prior, 1.0);
  return good / (good + Sane(evidence.bad) + 1);
}

}  // namespace efedllm
