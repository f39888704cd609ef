#include "incentive/penalty.h"

#include <algorithm>
#include <cmath>

#include "common/portable_math.h"

namespace efedllm {
namespace {

constexpr uint64_t kMostPpm = 1'000'000'000'000'000;

}  // namespace

uint64_t PenaltyMultiplePpm(const IncentiveRules& rules, uint64_t audit_ppm,
                            uint64_t detection_ppm) {
  // In millionths of millionths. p d >= 1 of them, so that the quotient is at most 1e12.
  const __uint128_t whole = __uint128_t{kWhole} * kWhole;
  const __uint128_t found = std::clamp<__uint128_t>(
      __uint128_t{std::min(audit_ppm, kWhole)} * std::min(detection_ppm, kWhole), 1, whole);
  const __uint128_t scaled = (whole - found) * rules.penalty_margin_ppm;
  const __uint128_t multiple = (scaled + found - 1) / found;
  return std::max(static_cast<uint64_t>(std::min<__uint128_t>(multiple, kMostPpm)),
                  rules.penalty_least_ppm);
}

int64_t PenaltyMicros(const IncentiveRules& rules, int64_t pay_micros, uint64_t audit_ppm,
                      uint64_t detection_ppm) {
  const __uint128_t product = __uint128_t{static_cast<uint64_t>(std::max<int64_t>(pay_micros, 0))} *
                              PenaltyMultiplePpm(rules, audit_ppm, detection_ppm);
  const __uint128_t micros = (product + kWhole - 1) / kWhole;
  return micros > INT64_MAX ? INT64_MAX : static_cast<int64_t>(micros);
}

PenaltySources CollectPenalty(int64_t penalty_micros, int64_t escrow_micros,
                              int64_t balance_micros) {
  PenaltySources sources;
  const int64_t penalty = std::max<int64_t>(penalty_micros, 0);
  sources.from_escrow = std::min(penalty, std::max<int64_t>(escrow_micros, 0));
  sources.from_balance =
      std::min(penalty - sources.from_escrow, std::max<int64_t>(balance_micros, 0));
  sources.uncollected = penalty - sources.from_escrow - sources.from_balance;
  return sources;
}

uint64_t BadChunksUntilFound(double audit, double detection, double confidence) {
  const double missed = 1 - audit * detection;
  if (!(missed > 0)) return 1;
  const double chunks = std::ceil(PortableLog(1 - confidence) / PortableLog(missed));
  return chunks >= 1 ? static_cast<uint64_t>(std::min(chunks, 1e15)) : 1;
}

uint64_t ChunksUntilFound(double audit, double detection, double confidence, uint64_t every) {
  return BadChunksUntilFound(audit, detection, confidence) * std::max<uint64_t>(every, 1);
}

}  // namespace efedllm
