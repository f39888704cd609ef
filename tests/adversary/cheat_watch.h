// What a cheat has done so far, as it knows itself: tests and benchmarks compare it with what the
// coordinator found.
#ifndef EFEDLLM_TESTS_ADVERSARY_CHEAT_WATCH_H_
#define EFEDLLM_TESTS_ADVERSARY_CHEAT_WATCH_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "worker/stage_tamper.h"

namespace efedllm {

// Thread-safe.
class CheatWatch {
 public:
  // The same cheat, watched: what of outputs and receipts it changes is counted. The watch outlives
  // it.
  StageTamper Watch(StageTamper cheat);

  // {"tokens": computed, "wrong_tokens": of them, "tokens_before": the first of these,
  //  "first_wrong": {"epoch", "sequence", "position"} or null, "receipts": made, "wrong_receipts",
  //  "first_wrong_receipt": {"epoch", "number"} or null, "wrong_chunks": claimed so far}.
  // Wrong weights make every token wrong. A receipt is wrong if it was changed, or claims a wrong
  // token; what it changed counts as the first wrong thing too.
  nlohmann::json ToJson() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Computed(const Step& step, const std::vector<bool>& wrong) ABSL_LOCKS_EXCLUDED(mu_);
  void Made(const Receipt& receipt, bool changed) ABSL_LOCKS_EXCLUDED(mu_);

  mutable absl::Mutex mu_;
  uint64_t tokens_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t wrong_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t receipts_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t wrong_receipts_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t tokens_before_ ABSL_GUARDED_BY(mu_) = 0;
  nlohmann::json first_wrong_ ABSL_GUARDED_BY(mu_), first_wrong_receipt_ ABSL_GUARDED_BY(mu_);
  uint64_t wrong_chunks_ ABSL_GUARDED_BY(mu_) = 0;
  // Sequence, and which of its multiples of kChunkTokens.
  std::set<std::pair<uint64_t, uint32_t>> wrong_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_ADVERSARY_CHEAT_WATCH_H_
