// What the tests of the serving side share: the bundled model, loaded once, a pipeline that plays
// the cluster and checks every step, and an HTTP exchange without HTTP.
#ifndef EFEDLLM_TESTS_COORDINATOR_SERVING_WORLD_H_
#define EFEDLLM_TESTS_COORDINATOR_SERVING_WORLD_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/generation.h"
#include "coordinator/pipeline.h"
#include "coordinator/served_model.h"
#include "net/http_server.h"
#include "nlohmann/json.hpp"

namespace efedllm {

// models/seedling/seedling-q8_0.gguf. Its head may be used by one scheduler at a time.
ServedModel& Seedling();
// An input for it: the text's tokens, greedy.
GenerationInput Ask(const std::string& prompt, uint32_t max_tokens);

struct Outcome {
  std::vector<int32_t> tokens;
  std::string text;
  std::optional<FinishReason> finish;
  std::vector<ScoredToken> prompt;
  std::vector<ScoredToken> scored;
  absl::Status status;
};
// All events of a generation with one choice.
Outcome Collect(Generation& generation, absl::Duration timeout = absl::Seconds(60));

// Layers that mix each token with all before it, so that a wrong position or a lost KV shows in the
// output. Breaks of the contract of pipeline.h and step.h are collected. Thread-safe.
class FakePipeline final : public Pipeline {
 public:
  // kv_tokens: of each of its chains.
  explicit FakePipeline(size_t stages = 1, uint64_t kv_tokens = 4096, size_t chains = 1);

  absl::StatusOr<PipelineCapacity> Capacity() const override ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Submit(Step step, size_t chain, Matrix hidden) override ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<StepResult> NextResult(absl::Duration timeout) override ABSL_LOCKS_EXCLUDED(mu_);
  void SetActiveSequences(size_t count) override ABSL_LOCKS_EXCLUDED(mu_);

  // While held, results stay inside.
  void Hold(bool hold) ABSL_LOCKS_EXCLUDED(mu_);
  // The next step fails like this.
  void FailNext(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);
  // All replays fail like this.
  void FailReplays(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);
  Epoch epoch() const ABSL_LOCKS_EXCLUDED(mu_);
  // The epoch ends; steps in flight come back as Aborted. Without a reason the next one begins.
  void EndEpoch(std::string unavailable = "") ABSL_LOCKS_EXCLUDED(mu_);
  void BeginEpoch(size_t stages) ABSL_LOCKS_EXCLUDED(mu_);
  // The epoch ends, and the next one goes on with its KV, which these stages have lost.
  void ContinueEpoch(std::vector<uint32_t> lost) ABSL_LOCKS_EXCLUDED(mu_);

  std::vector<std::string> violations() const ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<Step> steps() const ABSL_LOCKS_EXCLUDED(mu_);  // of chain i, ids from i << 40 on
  size_t sequences() const ABSL_LOCKS_EXCLUDED(mu_);         // that hold KV
  uint64_t kv_tokens() const ABSL_LOCKS_EXCLUDED(mu_);       // in whole pages, shared ones once
  size_t active() const ABSL_LOCKS_EXCLUDED(mu_);
  size_t most_in_flight() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct FakeKv {
    std::vector<std::vector<float>> states;
    std::vector<std::shared_ptr<int>> pages;  // who shares which

    void FitPages();
  };

  uint64_t KvTokens(size_t chain) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void Check(bool ok, const std::string& what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Trim(const SequenceTrim& trim) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Compute(const SequenceSpan& span, size_t row, Matrix& hidden)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AbortAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasResult() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !hold_ && !results_.empty(); }

  mutable absl::Mutex mu_;
  PipelineCapacity capacity_ ABSL_GUARDED_BY(mu_);
  std::string unavailable_ ABSL_GUARDED_BY(mu_);
  bool hold_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status fail_next_ ABSL_GUARDED_BY(mu_);
  absl::Status fail_replays_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<SequenceId, FakeKv> kv_ ABSL_GUARDED_BY(mu_);
  // Positions that the lost stages have again; nullopt: all have all.
  std::optional<absl::flat_hash_map<SequenceId, uint32_t>> lost_ ABSL_GUARDED_BY(mu_);
  std::deque<StepResult> results_ ABSL_GUARDED_BY(mu_);
  std::vector<Step> steps_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> violations_ ABSL_GUARDED_BY(mu_);
  size_t active_ ABSL_GUARDED_BY(mu_) = 0;
  size_t most_in_flight_ ABSL_GUARDED_BY(mu_) = 0;
};

// One request and what was answered. gone: the client hung up.
class FakeExchange final : public HttpExchange, public HttpStream {
 public:
  FakeExchange(std::string method, std::string path, std::string body = "",
               HttpHeaders headers = {});

  const HttpRequest& request() const override { return request_; }
  bool ClientGone() const override { return gone.load(); }
  void Reply(HttpReply reply) override { reply_ = std::move(reply); }
  void Stream(HttpReply head, StreamBody body) override;
  bool Write(absl::string_view bytes) override;

  // Runs the stream's body, as the server does after the handler. A client that hangs up after so
  // many writes.
  void RunStream(size_t hang_up_after = SIZE_MAX);

  int status() const { return reply_.status; }
  const HttpReply& reply() const { return reply_; }
  nlohmann::json json() const { return nlohmann::json::parse(reply_.body); }
  bool streamed() const { return streamed_; }
  // nullopt: the reply has no such header.
  std::optional<std::string> header(const std::string& name) const;
  // The data of the events so far.
  std::vector<std::string> events() const;

  std::atomic<bool> gone = false;

 private:
  HttpRequest request_;
  HttpReply reply_;
  bool streamed_ = false;
  StreamBody body_;
  std::string written_;
  size_t writes_left_ = SIZE_MAX;
};

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_COORDINATOR_SERVING_WORLD_H_
