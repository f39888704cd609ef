#include "coordinator/speculation.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"

namespace efedllm {
namespace {

constexpr double kUsualChance[kDraftKinds] = {0.3, 0.4, 0.6, 0.8, 0.6};
constexpr double kUsualTrials = 3;       // which that is worth
constexpr double kLeastRate = 1.0 / 16;  // of the moving average
constexpr uint32_t kHintTrials = 4;
constexpr double kLeastGain = 1.02;  // estimates of time are not that exact
constexpr uint32_t kFirstPatience = 16;
constexpr uint32_t kMostPatience = 4096;
constexpr uint32_t kTrialDrafts = 2;

double ExpectedRight(double chance, uint32_t tokens) {
  return chance >= 1 ? tokens : chance * (1 - std::pow(chance, tokens)) / (1 - chance);
}

double Rate(const StepCost& cost, double right, uint32_t drafts, double draft_seconds) {
  return (cost.tokens + right) /
         (cost.seconds(cost.rows + drafts) + cost.draft_time + draft_seconds);
}

uint32_t Most(const DraftOffer& offer, const StepCost& cost) {
  return std::min({offer.most, cost.room, kMostDrafts});
}

}  // namespace

DraftKind KindOfMatch(uint32_t length) {
  CHECK(length >= NgramLookup::kLeastMatch);
  if (length >= 8) return DraftKind::kMatch8;
  if (length >= 4) return DraftKind::kMatch4;
  return length == 3 ? DraftKind::kMatch3 : DraftKind::kMatch2;
}

DraftRules::DraftRules() {
  for (size_t kind = 0; kind < kDraftKinds; ++kind) {
    records_[kind] = {kUsualChance[kind], 0, 0, kFirstPatience};
  }
}

DraftChoice DraftRules::Choose(absl::Span<const DraftOffer> offers, const StepCost& cost) {
  DraftChoice best;
  if (!(cost.seconds(cost.rows) > 0)) return best;
  double best_rate = kLeastGain * Rate(cost, 0, 0, 0);
  for (const DraftOffer& offer : offers) {
    const double chance = record(offer.kind).chance;
    for (uint32_t tokens = 1; tokens <= Most(offer, cost); ++tokens) {
      const double right = ExpectedRight(chance, tokens);
      const double rate = Rate(cost, right, tokens, tokens * offer.seconds_per_token);
      if (rate <= best_rate) continue;
      best_rate = rate;
      best = {offer.kind, tokens, right};
    }
  }
  if (best.tokens > 0) {
    record(best.kind).refused = 0;
    record(best.kind).patience = kFirstPatience;
    return best;
  }
  for (const DraftOffer& offer : offers) {
    const uint32_t tokens = std::min(kTrialDrafts, Most(offer, cost));
    Record& tried = record(offer.kind);
    if (tokens == 0 || ++tried.refused < tried.patience) continue;
    tried.refused = 0;
    tried.patience = std::min(2 * tried.patience, kMostPatience);
    return {offer.kind, tokens, ExpectedRight(tried.chance, tokens)};
  }
  return best;
}

void DraftRules::Observe(DraftKind kind, uint32_t proposed, uint32_t accepted) {
  Record& seen = record(kind);
  const uint32_t trials = std::min(accepted + 1, proposed);  // what stands behind a wrong one says
  for (uint32_t i = 0; i < trials; ++i) {                    // nothing
    const double rate = std::max(kLeastRate, 1 / (kUsualTrials + ++seen.trials));
    seen.chance += ((i < accepted ? 1 : 0) - seen.chance) * rate;
  }
}

void DraftRules::TakeAsHint() {
  for (Record& record : records_) record.trials = std::min(record.trials, kHintTrials);
}

}  // namespace efedllm
