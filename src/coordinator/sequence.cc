#include "coordinator/sequence.h"

#include <string>
#include <utility>

#include "layers/kv_cache.h"

namespace efedllm {

Sequence::Sequence(SequenceId id, size_t choice, GenerationInput input,
                   std::shared_ptr<Generation> generation, const Tokenizer& tokenizer)
    : id_(id),
      choice_(choice),
      input_(std::move(input)),
      generation_(std::move(generation)),
      tokenizer_(tokenizer),
      sampler_(input_.sampling, input_.prompt),
      text_(input_.stop) {
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

uint64_t Sequence::kv_tokens() const {
  constexpr uint64_t kPage = KvCache::kPagePositions;
  return (max_positions() + kPage - 1) / kPage * kPage;
}

int32_t Sequence::token(uint32_t position) const {
  const size_t prompt = input_.prompt.size();
  return position < prompt ? input_.prompt[position] : output_[position - prompt];
}

bool Sequence::WantsLogits(uint32_t position) const {
  if (position + 1 == known()) return input_.max_tokens > 0;
  return input_.prompt_logprobs && position + 1 < input_.prompt.size() &&
         position + 1 >= prompt_scored_;
}

void Sequence::TakeLogits(uint32_t position, absl::Span<float> logits) {
  if (finished_) return;
  if (position + 1 < input_.prompt.size()) {
    GenerationEvent event;
    event.choice = choice_;
    const int32_t next = input_.prompt[position + 1];
    event.prompt.push_back({next, Score(logits, next)});
    prompt_scored_ = position + 2;
    generation_->Push(std::move(event));
    return;
  }
  const int32_t token = Sample(logits);
  output_.push_back(token);
  Emit(token, Score(logits, token));
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

int32_t Sequence::Sample(absl::Span<float> logits) {
  std::vector<float> unbiased;  // logprobs are those of the model
  unbiased.reserve(input_.logit_bias.size());
  for (const auto& [token, bias] : input_.logit_bias) {
    float& logit = logits[static_cast<size_t>(token)];
    unbiased.push_back(logit);
    logit += bias;
  }
  const int32_t token = sampler_.Sample(logits);
  for (size_t i = 0; i < unbiased.size(); ++i) {
    logits[static_cast<size_t>(input_.logit_bias[i].first)] = unbiased[i];
  }
  return token;
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
  event.completion_tokens = static_cast<uint32_t>(output_.size());
  event.cached_tokens = cached_tokens;
  if (!input_.ignore_eos && tokenizer_.IsEndOfGeneration(token)) {
    event.finish = FinishReason::kStop;
  } else {
    event.token = ScoredToken{token, std::move(logprobs)};
    event.text = text_.Append(Text(token));
    if (text_.stopped()) {
      event.finish = FinishReason::kStop;
    } else if (output_.size() >= input_.max_tokens) {
      event.finish = FinishReason::kLength;
    }
  }
  if (event.finish.has_value()) {
    event.text += text_.Finish();
    if (text_.stopped()) event.finish = FinishReason::kStop;  // found among what was held back
    finished_ = true;
  }
  generation_->Push(std::move(event));
}

}  // namespace efedllm
