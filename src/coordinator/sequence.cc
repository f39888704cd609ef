#include "coordinator/sequence.h"

#include <string>
#include <utility>

#include "common/check.h"

namespace efedllm {

Sequence::Sequence(SequenceId id, size_t choice, GenerationInput input,
                   std::shared_ptr<Generation> generation, const Tokenizer& tokenizer)
    : id_(id),
      choice_(choice),
      input_(std::move(input)),
      generation_(std::move(generation)),
      tokenizer_(tokenizer),
      sampler_(input_.sampling, input_.prompt, input_.logit_bias),
      text_(input_.stop),
      tokens_(input_.prompt) {
  for (const int32_t token : input_.prompt) {
    text_begun_ = text_begun_ || !tokenizer_.Piece(token, /*special=*/false).empty();
  }
  if (!input_.prompt_logprobs) return;
  GenerationEvent first;  // nothing stands before the first token: it has no logprob
  first.choice = choice_;
  first.prompt.push_back({input_.prompt[0], std::nullopt});
  prompt_scored_ = 1;
  generation_->Push(std::move(first));
}

int32_t Sequence::token(uint32_t position) const {
  return position < known() ? tokens_[position] : drafts_[position - known()];
}

void Sequence::MarkSubmitted(uint32_t tokens) {
  submitted_ += tokens;
  if (submitted_ < known()) return;  // a chunk of the prompt
  drafts_.resize(submitted_ - known());
  verification_ = {static_cast<uint32_t>(drafts_.size()), 0};
}

void Sequence::Restart(uint32_t cached) {
  drafts_.clear();
  verification_ = {};
  submitted_ = cached;
}

uint32_t Sequence::draft_room() const {
  if (!input_.speculation || finished_ || submitted_ + 1 != known()) return 0;
  return input_.max_tokens > sampled() ? input_.max_tokens - sampled() - 1 : 0;
}

void Sequence::SetDrafts(std::vector<int32_t> drafts) {
  CHECK(drafts.size() <= draft_room());
  drafts_ = std::move(drafts);
}

std::optional<Sequence::Verification> Sequence::TakeVerification() {
  if (verification_.proposed == 0 || !drafts_.empty()) return std::nullopt;
  return std::exchange(verification_, {});
}

bool Sequence::WantsLogits(uint32_t position) const {
  if (position + 1 >= known()) return input_.max_tokens > 0 && position < submitted_;
  return input_.prompt_logprobs && position + 1 < input_.prompt.size() &&
         position + 1 >= prompt_scored_;
}

bool Sequence::SamplesAt(uint32_t position) const {
  return !finished_ && position + 1 == known() && WantsLogits(position);
}

void Sequence::TakeLogits(uint32_t position, absl::Span<const float> logits) {
  if (SamplesAt(position)) {
    const int32_t token = sampler_.Sample(logits);
    tokens_.push_back(token);
    CheckDraft(token);
    Emit(token, Score(logits, token));
  } else if (!finished_ && position + 1 < input_.prompt.size()) {
    GenerationEvent event;
    event.choice = choice_;
    const int32_t next = input_.prompt[position + 1];
    event.prompt.push_back({next, Score(logits, next)});
    prompt_scored_ = position + 2;
    generation_->Push(std::move(event));
  }
}

// token is known since now.
void Sequence::CheckDraft(int32_t token) {
  if (drafts_.empty()) return;
  if (drafts_.front() != token) return DropDrafts(known() - 1);
  drafts_.erase(drafts_.begin());
  ++verification_.accepted;
  ++accepted_;
}

void Sequence::DropDrafts(uint32_t still_submitted) {
  rejected_ += static_cast<uint32_t>(drafts_.size());
  drafts_.clear();
  submitted_ = still_submitted;
}

void Sequence::TakePosition(uint32_t position) {
  if (finished_ || input_.max_tokens > 0 || position + 1 != known()) return;
  finished_ = true;
  GenerationEvent event;
  event.choice = choice_;
  event.finish = FinishReason::kLength;
  event.cached_tokens = cached_tokens;
  generation_->Push(std::move(event));
}

std::optional<Logprobs> Sequence::Score(absl::Span<const float> logits, int32_t token) const {
  if (!input_.logprobs.has_value()) return std::nullopt;
  return ComputeLogprobs(logits, token, *input_.logprobs);
}

// The space that a tokenizer puts before a text belongs to no text: not to one that begins here.
std::string Sequence::Text(int32_t token) {
  std::string piece = tokenizer_.Piece(token, /*special=*/false);
  if (text_begun_ || piece.empty()) return piece;
  text_begun_ = true;
  return tokenizer_.Decode({token}, /*remove_special=*/true, /*unparse_special=*/false);
}

void Sequence::Emit(int32_t token, std::optional<Logprobs> logprobs) {
  GenerationEvent event;
  event.choice = choice_;
  event.completion_tokens = sampled();
  event.cached_tokens = cached_tokens;
  if (EndsAt(token)) {
    event.finish = FinishReason::kStop;
  } else {
    event.token = ScoredToken{token, std::move(logprobs)};
    event.text = text_.Append(Text(token));
    if (text_.stopped()) {
      event.finish = FinishReason::kStop;
    } else if (sampled() >= input_.max_tokens) {
      event.finish = FinishReason::kLength;
    }
  }
  if (event.finish.has_value()) {
    event.text += text_.Finish();
    if (text_.stopped()) event.finish = FinishReason::kStop;  // found among what was held back
    finished_ = true;
    if (!drafts_.empty()) DropDrafts(known());
  }
  event.accepted_tokens = accepted_;
  event.rejected_tokens = rejected_;
  generation_->Push(std::move(event));
}

}  // namespace efedllm
