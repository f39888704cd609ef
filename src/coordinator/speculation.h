// When to guess tokens, and how many: pure rules, from how often guesses were right and what steps
// take. docs/decisions/0011-speculation.md
#ifndef EFEDLLM_COORDINATOR_SPECULATION_H_
#define EFEDLLM_COORDINATOR_SPECULATION_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "text/ngram_lookup.h"

namespace efedllm {

inline constexpr uint32_t kMostDrafts = 16;  // in one span

// Where a guess is from. A longer match is more often right.
enum class DraftKind { kMatch2, kMatch3, kMatch4, kMatch8, kModel };
inline constexpr size_t kDraftKinds = 5;
DraftKind KindOfMatch(uint32_t length);  // at least NgramLookup::kLeastMatch

// What a step will take, and yield. Steps hold the tokens of other sequences too: what is to be as
// large as possible is all of them a second.
struct StepCost {
  // Seconds that a step with so many tokens to decode takes of the pipeline; for one sequence
  // alone, until its logits are known. 0: nothing was measured yet.
  absl::FunctionRef<double(uint32_t rows)> seconds;
  uint32_t rows = 1;  // that are in it without the guess, this sequence's known token among them
  double tokens = 1;  // that these are expected to yield
  uint32_t room = 0;  // rows that may be added
  double draft_time = 0;  // seconds that the guesses of others in it take
};

struct DraftOffer {
  DraftKind kind = DraftKind::kMatch2;
  uint32_t most = 0;             // tokens
  double seconds_per_token = 0;  // to make them
};

struct DraftChoice {
  DraftKind kind = DraftKind::kMatch2;
  uint32_t tokens = 0;        // 0: no guess
  double expected_right = 0;  // of these
};

// One sequence's experience with drafts. The chance that the next draft is right if those before it
// were is a moving average for each kind; it begins with a usual value, so that each kind is tried.
class DraftRules {
 public:
  DraftRules();

  // What makes the most tokens a second: an offer and its length, or no guess. Where none pays, an
  // offer is tried now and then all the same, each time after twice as many refusals.
  DraftChoice Choose(absl::Span<const DraftOffer> offers, const StepCost& cost);
  // Of `proposed` drafts of that kind the first `accepted` were right.
  void Observe(DraftKind kind, uint32_t proposed, uint32_t accepted);
  // What was observed until now hints at what comes, and no more: it counts as few trials.
  void TakeAsHint();

  double chance(DraftKind kind) const { return record(kind).chance; }

 private:
  struct Record {
    double chance = 0;
    uint32_t trials = 0;
    uint32_t refused = 0;  // since it was last drafted
    uint32_t patience = 0;
  };
  Record& record(DraftKind kind) { return records_[static_cast<size_t>(kind)]; }
  const Record& record(DraftKind kind) const { return records_[static_cast<size_t>(kind)]; }

  std::array<Record, kDraftKinds> records_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_SPECULATION_H_
