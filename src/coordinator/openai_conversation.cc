#include "coordinator/openai_conversation.h"

#include <utility>

namespace efedllm {

Conversation::Conversation(const ServingSurroundings& surroundings, ApiRequest request,
                           const BoundRequest& bound, const Turn& turn,
                           std::shared_ptr<Generation> generation, int64_t created)
    : surroundings_(surroundings),
      request_(std::move(request)),
      writer_(surroundings.model, request_, bound, generation->id(), created),
      share_(surroundings.load, turn, bound.choices.size()),
      work_(std::move(generation)) {}

Conversation::~Conversation() { work_->Cancel(); }

ReplySource::News Conversation::Next(absl::Duration timeout) {
  if (pieces_.empty() && !finished_) {
    if (surroundings_.stopping) {
      finished_ = true;
      error_ = surroundings_.error_for(absl::UnavailableError("the coordinator is shutting down"));
    } else if (auto event = work_->Next(timeout)) {
      Take(*std::move(event));
    } else if (work_->done()) {
      Finish();
    }
  }
  News news;
  if (!pieces_.empty()) {
    news.piece = std::move(pieces_.front());
    pieces_.pop_front();
  } else if (finished_) {
    news.ended = true;
    news.error = error_;
  }
  return news;
}

void Conversation::Take(GenerationEvent event) {
  if (!event.status.ok()) {
    finished_ = true;
    error_ = surroundings_.error_for(event.status);
    return;
  }
  if (event.finish.has_value()) {
    share_.Finish(surroundings_.clock.Now(), surroundings_.scheduler.Stats());
  }
  if (!request_.stream) return writer_.Take(std::move(event));
  if (auto chunk = writer_.Chunk(std::move(event))) pieces_.push_back(*std::move(chunk));
}

void Conversation::Finish() {
  finished_ = true;
  if (!request_.stream) return pieces_.push_back(writer_.Whole());
  if (request_.include_usage) pieces_.push_back(writer_.UsageChunk());
  pieces_.push_back("[DONE]");
}

}  // namespace efedllm
