// Evidence for and against a node, as a Beta distribution (Jøsang and Ismail, "The Beta Reputation
// System", 2002): r good and s bad observations give Beta(r + prior, s + 1). Old ones fade.
#ifndef EFEDLLM_INCENTIVE_BETA_EVIDENCE_H_
#define EFEDLLM_INCENTIVE_BETA_EVIDENCE_H_

namespace efedllm {

// ln Gamma(x), x > 0, within 1e-13 relative or absolute. The same bits everywhere.
double PortableLogGamma(double x);

// The regularized incomplete beta function I_x(a, b): the chance that a Beta(a, b) variable is at
// most x. a, b in [1e-3, 1e7]; x is clamped to [0, 1]. Within 1e-9. The same bits everywhere.
double BetaDistribution(double a, double b, double x);

// The x with I_x(a, b) = quantile, within 1e-9. quantile in (0, 1).
double BetaQuantile(double a, double b, double quantile);

// Counts of observations, each worth less the older it is. Both at least 0.
struct BetaEvidence {
  double good = 0;
  double bad = 0;

  friend bool operator==(const BetaEvidence&, const BetaEvidence&) = default;
};

// What is left of it after so many seconds: each counts half after the half-life. Not after
// negative ones: clocks may be set back.
BetaEvidence Forget(const BetaEvidence& evidence, double seconds, double half_life_seconds);

// Weights are at most kMostEvidence, beyond which nothing changes that matters: what is more is
// scaled back, both alike. NaN and what is negative counts as 0.
inline constexpr double kMostEvidence = 100'000;
BetaEvidence Add(const BetaEvidence& evidence, double good, double bad);

// Of Beta(good + prior, bad + 1). prior >= 1: what a stranger is taken to have shown.
double LowerBound(const BetaEvidence& evidence, double prior, double quantile);
double Mean(const BetaEvidence& evidence, double prior);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_BETA_EVIDENCE_H_
