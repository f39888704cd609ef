// A small model on the coordinator that guesses what the served one will say.
#ifndef EFEDLLM_COORDINATOR_DRAFT_MODEL_H_
#define EFEDLLM_COORDINATOR_DRAFT_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cluster/step.h"
#include "common/clock.h"
#include "common/ids.h"
#include "coordinator/served_model.h"
#include "layers/compute.h"
#include "model/local_model.h"
#include "model/model_file.h"
#include "text/sampler.h"

namespace efedllm {

struct DraftModelOptions {
  std::string path;           // GGUF file or Hugging Face folder
  uint32_t context = 0;       // positions that a sequence may have; more are not drafted
  size_t max_sequences = 16;  // that are drafted at once
};

// One caller at a time (the scheduler's thread), its sessions included.
class DraftModel {
 public:
  // Rows that one call computes to learn what it does not know yet: a long prompt must not hold up
  // all others.
  static constexpr uint32_t kCatchUpRows = 64;

  // clock and compute are borrowed and outlive this. InvalidArgument: its vocabulary is not
  // target's, token by token; others: the file is bad, or too large.
  static absl::StatusOr<std::unique_ptr<DraftModel>> Load(const DraftModelOptions& options,
                                                          const ServedModel& target,
                                                          const Clock& clock, Compute& compute);

  // What the model holds of one sequence. Gone: its KV is free. The model outlives it.
  class Session {
   public:
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

   private:
    friend class DraftModel;
    Session(DraftModel& model, SequenceId id) : model_(model), id_(id) {}

    DraftModel& model_;
    const SequenceId id_;
    std::vector<int32_t> held_;  // tokens whose KV the model has
    size_t known_ = 0;           // of these, that were found in the sequence
  };
  std::unique_ptr<Session> Begin();

  struct Request {
    Session* session = nullptr;
    // All of the sequence, at least one. It only ever grows.
    absl::Span<const int32_t> tokens;
    Sampler sampler;  // a copy of the sequence's own: it meets the same draws (see 0011)
    uint32_t most = 0;
    std::function<bool(int32_t)> ends_at;  // nothing is drafted behind such a token
    std::vector<int32_t> drafts;           // what comes out: up to `most`
  };
  // Drafts for all of them, batched. A request gets nothing while the model catches up with it, and
  // where KV memory is short. An error is the model's own (not finite, say).
  absl::Status Draft(absl::Span<Request> requests);

  // Of a step that makes one more token for the sequences of a call, as lately measured; 0: never.
  double seconds_per_token() const { return seconds_per_token_; }
  uint64_t kv_tokens_used() const { return kv_tokens_used_; }
  // Weights, and KV when it is full.
  uint64_t memory_bytes() const { return memory_bytes_; }

 private:
  // A request's part of the steps of one call.
  struct Row {
    Request* request = nullptr;
    std::vector<int32_t> tokens;  // of the next step
    uint64_t kv_before = 0;       // that its session had
    bool drafts = false;          // false: the model only catches up
  };

  DraftModel(const Clock& clock, ModelFile file) : clock_(clock), file_(std::move(file)) {}
  void FreeEnded(Step& step);
  std::vector<Row> Feed(absl::Span<Request> requests);
  absl::Status Advance(Step step, std::vector<Row>& rows);
  static bool Continues(const Row& row);

  const Clock& clock_;
  const ModelFile file_;
  std::unique_ptr<LocalModel> model_;
  uint64_t memory_bytes_ = 0;
  uint64_t kv_tokens_used_ = 0;  // in whole pages
  struct Ended {
    SequenceId id;
    uint64_t kv_tokens = 0;
  };
  std::vector<Ended> ended_;  // sessions whose KV is still there
  SequenceId last_session_{0};
  double seconds_per_token_ = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_DRAFT_MODEL_H_
