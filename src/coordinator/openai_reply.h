// Generation events -> the JSON that OpenAI's clients read, whole or in chunks.
#ifndef EFEDLLM_COORDINATOR_OPENAI_REPLY_H_
#define EFEDLLM_COORDINATOR_OPENAI_REPLY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/generation.h"
#include "coordinator/openai_request.h"
#include "coordinator/served_model.h"
#include "nlohmann/json.hpp"

namespace efedllm {

// One choice of a reply: collects news and hands them out. model and request are borrowed.
class ReplyChoice {
 public:
  // echo: the prompt's text, put before the output; nullopt: not asked for.
  ReplyChoice(const ServedModel& model, const ApiRequest& request, size_t index,
              std::optional<std::string> echo);

  void Take(GenerationEvent event);
  // Is there something to say that a client could use? Not while only the prompt was scored.
  bool HasNews() const { return !text_.empty() || !tokens_.empty() || finish_.has_value(); }
  // The news since the last call, as an element of "choices": of a chunk, or of a whole reply.
  nlohmann::json Flush(bool chunk);
  uint32_t completion_tokens() const { return completion_tokens_; }
  uint32_t accepted_tokens() const { return accepted_tokens_; }
  uint32_t rejected_tokens() const { return rejected_tokens_; }
  uint32_t cached_tokens() const { return cached_tokens_; }

 private:
  nlohmann::json CompletionLogprobs();
  nlohmann::json ChatLogprobs() const;
  std::string OffsetText(int32_t token);

  const ServedModel& model_;
  const ApiRequest& request_;
  const size_t index_;
  std::optional<std::string> echo_;  // until the first news of the output
  std::vector<ScoredToken> prompt_;  // held back with it

  std::string text_;
  std::vector<ScoredToken> tokens_;
  std::optional<FinishReason> finish_;
  uint32_t completion_tokens_ = 0;
  uint32_t accepted_tokens_ = 0;
  uint32_t rejected_tokens_ = 0;
  uint32_t cached_tokens_ = 0;
  size_t offset_ = 0;  // characters before the next token
  bool offset_begun_ = false;
  bool role_sent_ = false;
};

// A new reply's id: "chatcmpl-" or "cmpl-" and 24 random hex digits.
std::string NewReplyId(bool chat);

// A reply with all its choices. model, request and bound are borrowed.
class ReplyWriter {
 public:
  // created: seconds since 1970.
  ReplyWriter(const ServedModel& model, const ApiRequest& request, const BoundRequest& bound,
              std::string id, int64_t created);

  // Streamed: the events' data for this event, none or one.
  std::optional<std::string> Chunk(GenerationEvent event);
  // Streamed: the last chunk, where include_usage asks for it.
  std::string UsageChunk() const;

  // Not streamed: collect all events, then write.
  void Take(GenerationEvent event);
  std::string Whole();

 private:
  nlohmann::json Envelope(bool chunk) const;
  nlohmann::json Usage() const;

  const ServedModel& model_;
  const ApiRequest& request_;
  const size_t prompt_tokens_;
  const std::string id_;
  const int64_t created_;
  std::vector<ReplyChoice> choices_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_OPENAI_REPLY_H_
