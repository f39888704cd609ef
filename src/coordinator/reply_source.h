// A reply that comes in pieces, as its readers see it: computed for one of them, shared, or stored.
#ifndef EFEDLLM_COORDINATOR_REPLY_SOURCE_H_
#define EFEDLLM_COORDINATOR_REPLY_SOURCE_H_

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "coordinator/openai_json.h"

namespace efedllm {

// One thread at a time.
class ReplySource {
 public:
  // A piece, or how the reply ended, or nothing yet.
  struct News {
    std::optional<std::string> piece;  // an event's data if it is streamed, else the one body
    bool ended = false;
    std::optional<ApiError> error;  // it ended with

    bool any() const { return piece.has_value() || ended; }
  };

  virtual ~ReplySource() = default;

  // Waits for news, perhaps less than the timeout.
  virtual News Next(absl::Duration timeout) = 0;
  // Is it streamed? Known when there is a piece.
  virtual bool stream() const = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_REPLY_SOURCE_H_
