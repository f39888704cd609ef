// OpenAI's HTTP API over the scheduler: /v1/models, /v1/completions, /v1/chat/completions, /health
// and /metrics.
#ifndef EFEDLLM_COORDINATOR_OPENAI_API_H_
#define EFEDLLM_COORDINATOR_OPENAI_API_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "common/clock.h"
#include "coordinator/reply_store.h"
#include "coordinator/scheduler.h"
#include "coordinator/served_model.h"
#include "net/http_server.h"
#include "prometheus/collectable.h"
#include "prometheus/registry.h"

namespace efedllm {

struct OpenAiOptions {
  // The scheduler's; a full queue refuses a request before it is looked at. 0: not known.
  size_t max_queue = 0;
  // Where replies to requests with an Idempotency-Key are kept, borrowed; null: only while they
  // run.
  ReplyStore* replies = nullptr;
  // The cluster's, in the words of ClusterStatus, for Retry-After; empty: not known.
  std::function<std::string()> cluster_state;
  // Unavailable, in words for a client: no request is taken now. Empty: all are.
  std::function<absl::Status()> accepting;
};

// Thread-safe. Every error is a reply in OpenAI's form {"error": {message, type, param, code}}.
class OpenAiApi {
 public:
  // Everything is borrowed and outlives this, and the HTTP server's last exchange. /metrics shows
  // the registry's and those of cluster_metrics, if there are any.
  OpenAiApi(const Clock& clock, const ServedModel& model, Scheduler& scheduler,
            prometheus::Registry& registry,
            const prometheus::Collectable* cluster_metrics = nullptr,
            const OpenAiOptions& options = {});
  ~OpenAiApi();

  // An HttpServer::Handler.
  void Handle(HttpExchange& exchange);
  // From now on requests are refused, and those that run end with an error, within a moment: a
  // stream with an error event.
  void Stop();
  // An HttpServer::ErrorReply.
  static HttpReply ErrorReply(int status, absl::string_view message);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_OPENAI_API_H_
