// Guesses for the sequences that a step decodes: looked up in their own text, or made by a draft
// model. docs/decisions/0011-speculation.md
#ifndef EFEDLLM_COORDINATOR_SPECULATOR_H_
#define EFEDLLM_COORDINATOR_SPECULATOR_H_

#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/draft_model.h"
#include "coordinator/sequence.h"
#include "coordinator/speculation.h"
#include "prometheus/counter.h"
#include "prometheus/registry.h"
#include "text/ngram_lookup.h"

namespace efedllm {

// What is kept of one sequence, in Sequence::drafting.
struct Drafting {
  NgramLookup lookup;
  DraftRules rules;
  std::unique_ptr<DraftModel::Session> session;  // from the first draft of the model on
  DraftKind kind = DraftKind::kMatch2;           // of the drafts that were set last
};

// Used by the scheduler's thread alone.
class Speculator {
 public:
  // model: null where there is none; borrowed. It outlives this and every sequence.
  Speculator(DraftModel* model, prometheus::Registry& registry);

  // Gives drafts to those of the next step's decoding sequences for which it pays. cost: of that
  // step without drafts.
  void Draft(absl::Span<Sequence* const> decodes, StepCost cost);
  // After a sequence's logits were taken.
  void Observe(Sequence& sequence);

 private:
  struct Counters {
    prometheus::Counter& proposed;
    prometheus::Counter& accepted;
  };
  static Counters MakeCounters(prometheus::Registry& registry, const char* source);

  // One sequence's choice, and its drafts if they are looked up.
  DraftChoice Choose(Sequence& sequence, const StepCost& cost);
  void DraftByModel(absl::Span<DraftModel::Request> requests, absl::Span<Sequence* const> drafted);

  DraftModel* model_;
  Counters ngram_;
  Counters draft_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_SPECULATOR_H_
