// What the API asks of the scheduler, and what comes back: token by token, through a queue of the
// request's own.
#ifndef EFEDLLM_COORDINATOR_GENERATION_H_
#define EFEDLLM_COORDINATOR_GENERATION_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "text/sampler.h"

namespace efedllm {

// One sequence to generate. The API has checked all of it (openai_request.h).
struct GenerationInput {
  std::vector<int32_t> prompt;  // at least one token, all in the vocabulary
  uint32_t max_tokens = 0;      // 0: the prompt alone is computed, for its logprobs
  SamplingOptions sampling;
  std::vector<std::pair<int32_t, float>> logit_bias;  // token, added to its logit before sampling
  std::vector<std::string> stop;
  bool ignore_eos = false;
  std::optional<int> logprobs;   // this many of the likeliest tokens beside the chosen one
  bool prompt_logprobs = false;  // those of the prompt's tokens too; needs logprobs
  int priority = 0;              // higher first, from -100 to 100
  absl::Time deadline = absl::InfiniteFuture();  // then its request fails with DeadlineExceeded
  std::string owner;         // whose share it takes: a hash of the client's API key; empty: none
  bool speculation = true;   // may be sped up by drafts; what it yields is the same
  bool cache_prompt = true;  // may use and fill the prefix cache
};

enum class FinishReason { kStop, kLength };

// A token and how likely it was, in the unmodified distribution of the model.
struct ScoredToken {
  int32_t token = 0;
  std::optional<Logprobs> logprobs;  // nullopt: not asked for, or the prompt's first token
};

// News of one choice.
struct GenerationEvent {
  size_t choice = 0;
  std::vector<ScoredToken> prompt;  // the next tokens of the prompt, where prompt_logprobs is set
  std::optional<ScoredToken>
      token;         // a sampled token; an end-of-generation token never stands here
  std::string text;  // what became sure with it: whole UTF-8 characters, stop strings cut
  std::optional<FinishReason> finish;  // the choice's last event
  uint32_t completion_tokens =
      0;                         // sampled so far in this choice, an end-of-generation one included
  uint32_t accepted_tokens = 0;  // of these, that a draft had right
  uint32_t rejected_tokens = 0;  // of the drafts, computed for nothing
  uint32_t cached_tokens = 0;    // of the prompt, whose KV was there before
  absl::Status status;  // not OK: the whole request failed and this is its last event. Unavailable:
                        // no epoch served for too long, or the coordinator stops;
                        // DeadlineExceeded: its deadline passed
};

// A request in the scheduler: all its choices. Shared by the scheduler, which writes events, and
// one consumer. Their number is bounded by the tokens that were asked for. Thread-safe.
class Generation {
 public:
  // id: the API's name for the request, for traces and logs.
  explicit Generation(size_t choices, std::string id = "")
      : id_(std::move(id)), unfinished_(choices) {}

  const std::string& id() const { return id_; }

  // Waits for the next event. nullopt: the timeout passed, or everything was taken (see done()).
  std::optional<GenerationEvent> Next(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);
  // All choices have finished or the request failed, and every event was taken.
  bool done() const ABSL_LOCKS_EXCLUDED(mu_);
  // The consumer lost interest: KV is freed on all nodes with the next step.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

  // For the scheduler.
  void Push(GenerationEvent event) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  bool HasEventOrIsOver() const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  const std::string id_;
  std::atomic<bool> cancelled_ = false;
  mutable absl::Mutex mu_;
  std::deque<GenerationEvent> events_ ABSL_GUARDED_BY(mu_);
  size_t unfinished_ ABSL_GUARDED_BY(mu_);  // choices; 0 after a failure
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_GENERATION_H_
