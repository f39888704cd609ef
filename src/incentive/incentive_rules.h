// The rules of the incentive, as data: prices, thresholds, audit rates, probation, penalties. Every
// entry of the ledger names the version that it was made under; versions only go forward.
#ifndef EFEDLLM_INCENTIVE_INCENTIVE_RULES_H_
#define EFEDLLM_INCENTIVE_INCENTIVE_RULES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/sha256.h"

namespace efedllm {

// Millionths: what shares are kept in, so that no rule and no money depends on a float.
inline constexpr uint64_t kWhole = 1'000'000;

// The defaults are those of config/incentive.toml. _ppm: millionths.
struct IncentiveRules {
  uint64_t version = 1;  // 1 ...

  // Money is in micro-credits.
  uint64_t price_micros_per_tflop = 1'000'000;   // to a node, of dense-reference work
  uint64_t charge_micros_per_tflop = 1'000'000;  // to an API key
  uint64_t promptness_least_ppm = 500'000;       // below which the factors don't go
  uint64_t availability_least_ppm = 500'000;
  uint64_t scarcity_most_ppm = 1'250'000;  // for layers that one owner alone holds
  uint64_t scarcity_holders = 3;           // owners from which on there is no bonus

  uint64_t quantile_ppm = 50'000;          // of the Beta distribution: the lower bound
  uint64_t trusted_at_ppm = 950'000;       // lower bound of honesty, to be trusted
  uint64_t probation_again_ppm = 900'000;  // and below which it is so no more
  uint64_t probation_chunks = 64;          // audited without a fault since probation began
  uint64_t honesty_half_life_hours = 2160;
  uint64_t reliability_half_life_hours = 24;
  uint64_t reliability_prior = 8;  // good steps that a new node is taken to have had, and one bad
  uint64_t dispute_peers = 2;      // different ones, for quarantine
  uint64_t withheld_audits = 3;    // bytes not delivered in the audit window, for quarantine
  uint64_t verifier_faults = 1;    // proven wrong answers of a verifier, for eviction

  uint64_t audit_floor_ppm = 100'000;    // share of the chunks of a proven node
  uint64_t audit_recheck_ppm = 250'000;  // share of a verifier's answers that are checked
  uint64_t audit_planted_ppm = 50'000;   // challenges to verifiers that are known to be bad

  uint64_t penalty_margin_ppm = 2'000'000;  // times the least that makes cheating a loss
  uint64_t penalty_least_ppm = 10'000'000;  // times the chunk's pay, whatever the audit rate

  uint64_t escrow_seconds = 600;       // after which pay may be posted
  uint64_t escrow_chunks = 128;        // and so many later chunks of the node
  uint64_t escrow_longest_hours = 24;  // after which the chunks count no more

  friend bool operator==(const IncentiveRules&, const IncentiveRules&) = default;
};

// How a rule is written and within which bounds.
struct IncentiveRuleField {
  const char* table;  // "": at the top
  const char* key;
  uint64_t IncentiveRules::*value;
  bool share;            // written as a decimal number, kept in millionths
  uint64_t least, most;  // as kept
  const char* help;      // lines, for people
};
// In the order of the file.
absl::Span<const IncentiveRuleField> IncentiveRuleFields();

// What is not in the text has its default. InvalidArgument, with the line: not TOML, an unknown
// table or key, a value of another type or out of its range; or rules that contradict each other.
absl::StatusOr<IncentiveRules> ParseIncentiveRules(absl::string_view toml);

// Of a file, whose name errors have before them. Empty: the defaults. NotFound and others of
// reading it.
absl::StatusOr<IncentiveRules> ReadIncentiveRules(const std::string& path);

// Bounds of every field, and what must hold between them: the threshold to lose trust is below that
// to win it, and the escrow holds at least the penalty that the lowest audit rate asks for.
absl::Status ValidateIncentiveRules(const IncentiveRules& rules);

// The inverse of Parse. commented_out: as config/incentive.toml, with every help, and each value
// behind "# ".
std::string IncentiveRulesToml(const IncentiveRules& rules, bool commented_out);

// One line "table.key=integer" for each field in the order of the file: what the digest is of. The
// ledger keeps the text, so that the rules of every entry can be read offline.
std::string CanonicalIncentiveRules(const IncentiveRules& rules);
Sha256Digest IncentiveRulesDigest(const IncentiveRules& rules);
// From the ledger. DataLoss: not the canonical text of valid rules.
absl::StatusOr<IncentiveRules> ParseCanonicalIncentiveRules(absl::string_view text);

// May next follow current? Yes if they are equal, or if its version is higher. FailedPrecondition
// says which version it must have.
absl::Status CheckIncentiveRulesSuccessor(const IncentiveRules& current,
                                          const IncentiveRules& next);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_INCENTIVE_RULES_H_
