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

// Used by the scheduler's thread alone. tokenizer is borrowed.
class Sequence {
 public:
  Sequence(SequenceId id, size_t choice, GenerationInput input,
           std::shared_ptr<Generation> generation, const Tokenizer& tokenizer);

  SequenceId id() const { return id_; }
  Generation& generation() const { return *generation_; }
  size_t prompt_tokens() const { return input_.prompt.size(); }
  // All that it may become: prompt and output.
  uint64_t max_positions() const { return input_.prompt.size() + uint64_t{input_.max_tokens}; }
  // KV that is reserved for it: whole pages for max_positions().
  uint64_t kv_tokens() const;

  // Tokens known so far, and those of them that are in steps of this epoch.
  uint32_t known() const { return static_cast<uint32_t>(input_.prompt.size() + output_.size()); }
  uint32_t submitted() const { return submitted_; }
  int32_t token(uint32_t position) const;
  void MarkSubmitted(uint32_t tokens) { submitted_ += tokens; }
  // All KV is lost: everything known is computed again, and nothing is said twice.
  void Restart() { submitted_ = 0; }

  // Does anything depend on the logits of this position?
  bool WantsLogits(uint32_t position) const;
  // The logits [vocab] of a wanted position, in order of position; scratch for this call. Samples
  // behind the last known token; the news go to the generation.
  void TakeLogits(uint32_t position, absl::Span<float> logits);
  // After the last known position was computed, whether its logits were wanted or not.
  void TakePosition(uint32_t position);
  bool finished() const { return finished_; }

  // The scheduler's own notes.
  bool probe = false;  // a health check's, not a client's
  absl::Time arrived;
  std::optional<absl::Time> last_token_at;
  uint64_t last_step = 0;      // that it was in
  uint32_t cached_tokens = 0;  // of the prompt, whose KV was there when it was first admitted

 private:
  std::optional<Logprobs> Score(absl::Span<const float> logits, int32_t token) const;
  int32_t Sample(absl::Span<float> logits);
  std::string Text(int32_t token);
  void Emit(int32_t token, std::optional<Logprobs> logprobs);

  const SequenceId id_;
  const size_t choice_;
  const GenerationInput input_;
  const std::shared_ptr<Generation> generation_;
  const Tokenizer& tokenizer_;
  Sampler sampler_;
  TextStream text_;
  std::vector<int32_t> output_;
  uint32_t submitted_ = 0;
  uint32_t prompt_scored_ = 0;  // prompt tokens that were reported with their logprobs
  bool text_begun_ = false;     // a token with text stands in the prompt or the output
  bool finished_ = false;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_SEQUENCE_H_
