// One generating request on its way: what it asked for, its work in the scheduler, its reply.
#ifndef EFEDLLM_COORDINATOR_OPENAI_CONVERSATION_H_
#define EFEDLLM_COORDINATOR_OPENAI_CONVERSATION_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/clock.h"
#include "coordinator/generation.h"
#include "coordinator/openai_load.h"
#include "coordinator/openai_reply.h"
#include "coordinator/openai_request.h"
#include "coordinator/reply_source.h"
#include "coordinator/scheduler.h"
#include "coordinator/served_model.h"

namespace efedllm {

// What requests share; all borrowed.
struct ServingSurroundings {
  const Clock& clock;
  const ServedModel& model;
  Scheduler& scheduler;
  LoadMeter& load;
  const std::atomic<bool>& stopping;  // set: what runs fails
  const std::function<ApiError(const absl::Status&)>& error_for;
};

// What it began is cancelled on all nodes when this goes.
class Conversation final : public ReplySource {
 public:
  // created: seconds since 1970.
  Conversation(const ServingSurroundings& surroundings, ApiRequest request,
               const BoundRequest& bound, const Turn& turn, std::shared_ptr<Generation> generation,
               int64_t created);
  ~Conversation() override;

  News Next(absl::Duration timeout) override;
  bool stream() const override { return request_.stream; }

 private:
  void Take(GenerationEvent event);
  void Finish();

  const ServingSurroundings surroundings_;
  const ApiRequest request_;
  ReplyWriter writer_;
  LoadMeter::Share share_;
  const std::shared_ptr<Generation> work_;
  std::deque<std::string> pieces_;  // ready
  bool finished_ = false;           // no piece will follow those
  std::optional<ApiError> error_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_OPENAI_CONVERSATION_H_
