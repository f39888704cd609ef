// One choice of a request while it is being generated: its tokens so far, and what turns logits
// into the next one.
#ifndef EFEDLLM_COORDINATOR_SEQUENCE_H_
#define EFEDLLM_COORDINATOR_SEQUENCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/ids.h"
#include "coordinator/generation.h"
#include "text/sampler.h"
#include "text/text_stream.h"
#include "text/tokenizer.h"

namespace efedllm {

struct Drafting;  // coordinator/speculator.h

// Used by the scheduler's thread alone. tokenizer is borrowed.
class Sequence {
 public:
  Sequence(SequenceId id, size_t choice, GenerationInput input,
           std::shared_ptr<Generation> generation, const Tokenizer& tokenizer);

  size_t choice() const { return choice_; }
  SequenceId id() const { return id_; }
  Generation& generation() const { return *generation_; }
  size_t prompt_tokens() const { return input_.prompt.size(); }
  // All that it may become: prompt and output.
  uint64_t max_positions() const { return input_.prompt.size() + uint64_t{input_.max_tokens}; }
  const std::string& owner() const { return input_.owner; }
  int priority() const { return input_.priority; }
  absl::Time deadline() const { return input_.deadline; }
  // May its KV be others' too? Not where the logits of all its prompt are wanted.
  bool shares_prefix() const { return input_.cache_prompt && !input_.prompt_logprobs && !probe; }

  // Prompt and output.
  absl::Span<const int32_t> tokens() const { return tokens_; }
  // Tokens known so far, and positions that are in steps of this epoch: those of known tokens, and
  // of the drafts behind them.
  uint32_t known() const { return static_cast<uint32_t>(tokens_.size()); }
  uint32_t submitted() const { return submitted_; }
  // Where what can be submitted ends: known tokens and drafts.
  uint32_t ready() const { return known() + static_cast<uint32_t>(drafts_.size()); }
  int32_t token(uint32_t position) const;  // below ready()
  // The next positions stand in a step now. Drafts that don't are dropped.
  void MarkSubmitted(uint32_t tokens);
  // Its KV is lost, but for that of the first `cached` positions: what is known behind them is
  // computed again, and nothing is said twice.
  void Restart(uint32_t cached);

  // Speculation. Drafts are guesses of the tokens behind the last known one, and stand in one span
  // with it. TakeLogits samples at each of these positions as if there were no drafts. As long as
  // the sampled token is the draft, the next position was computed for the right text; from the
  // first that differs on it was not: the drafts are gone, their positions are not submitted any
  // more, and the next span begins where they did, which drops their KV. Once its steps are back,
  // every submitted position has the KV of a known token.
  //
  // How many drafts may stand behind the last known token now; 0 too if the client wants none.
  uint32_t draft_room() const;
  // At most draft_room(). Those that were set before and not submitted are replaced.
  void SetDrafts(std::vector<int32_t> drafts);
  // What became of the last drafts that were submitted, once: nullopt if there were none, or if
  // their logits have not been taken.
  struct Verification {
    uint32_t proposed = 0;
    uint32_t accepted = 0;
  };
  std::optional<Verification> TakeVerification();
  // Picks what the sequence's own will pick, for as long as the drafts are right.
  Sampler sampler() const { return sampler_; }
  bool EndsAt(int32_t token) const {
    return !input_.ignore_eos && tokenizer_.IsEndOfGeneration(token);
  }

  // Does anything depend on the logits of this position, for all that is known before its step is
  // taken?
  bool WantsLogits(uint32_t position) const;
  // Will TakeLogits sample here? Not behind a wrong draft.
  bool SamplesAt(uint32_t position) const;
  // The logits [vocab] of a wanted position, in order of position. Samples behind the last known
  // token; the news go to the generation.
  void TakeLogits(uint32_t position, absl::Span<const float> logits);
  // After the last known position was computed, whether its logits were wanted or not.
  void TakePosition(uint32_t position);
  bool finished() const { return finished_; }

  // The scheduler's own notes.
  bool probe = false;  // a health check's, not a client's
  absl::Time arrived;
  std::optional<absl::Time> last_token_at;
  uint64_t last_step = 0;      // that it was in
  uint32_t cached_tokens = 0;  // of the prompt, whose KV was there when it was first admitted
  std::shared_ptr<Drafting> drafting;  // the speculator's
  struct Charged {
    uint32_t positions = 0;  // computed, or cached
    uint32_t tokens = 0;     // known; 0: nothing is charged yet
  };
  Charged charged;  // to its owner: the usage meter's

 private:
  uint32_t sampled() const { return known() - static_cast<uint32_t>(input_.prompt.size()); }
  std::optional<Logprobs> Score(absl::Span<const float> logits, int32_t token) const;
  void CheckDraft(int32_t token);
  void DropDrafts(uint32_t still_submitted);
  std::string Text(int32_t token);
  void Emit(int32_t token, std::optional<Logprobs> logprobs);

  const SequenceId id_;
  const size_t choice_;
  const GenerationInput input_;
  const std::shared_ptr<Generation> generation_;
  const Tokenizer& tokenizer_;
  Sampler sampler_;
  TextStream text_;
  std::vector<int32_t> tokens_;  // prompt and output
  std::vector<int32_t> drafts_;  // behind the last known token; those not yet verified
  Verification verification_;    // of the drafts that were submitted last
  uint32_t accepted_ = 0;        // drafts, in all
  uint32_t rejected_ = 0;
  uint32_t submitted_ = 0;
  uint32_t prompt_scored_ = 0;  // prompt tokens that were reported with their logprobs
  bool text_begun_ = false;     // a token with text stands in the prompt or the output
  bool finished_ = false;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_SEQUENCE_H_
