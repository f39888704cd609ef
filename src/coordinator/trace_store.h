// Where the time of the last requests went, step by step: what `efedllm-ctl trace` shows.
#ifndef EFEDLLM_COORDINATOR_TRACE_STORE_H_
#define EFEDLLM_COORDINATOR_TRACE_STORE_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/stage_timing.h"
#include "common/ids.h"

namespace efedllm {

// One sequence's part in one step that came back.
struct StepTrace {
  Epoch epoch;
  StepId step;
  size_t chain = 0;
  size_t choice = 0;
  uint32_t first_position = 0;
  uint32_t tokens = 0;
  uint32_t rows = 0;  // of the whole step, with those of other sequences
  // By the coordinator's clock.
  absl::Time submitted;
  absl::Time returned;
  uint32_t received_codec = 0;  // as StepResult
  uint32_t received_bytes = 0;
  absl::Time head_begun;  // the output head and the samplers, of all its rows
  absl::Time head_done;
  std::shared_ptr<const std::vector<StageTiming>>
      timings;  // never null; the step's others share it
};

struct RequestTrace {
  std::string request;
  std::vector<StepTrace> steps;  // as they came back
  uint64_t steps_left_out = 0;   // that came when there was no more room for this request
};

// Thread-safe. Keeps the last requests to begin, within bounds of requests, steps of each, and
// steps together.
class TraceStore {
 public:
  static constexpr size_t kMaxRequests = 256;
  static constexpr size_t kMaxSteps = 4096;
  static constexpr size_t kMaxStepsTogether = 1 << 17;

  // request: the id that the API answers with; nothing is kept for an empty one.
  void Record(absl::string_view request, StepTrace trace) ABSL_LOCKS_EXCLUDED(mu_);

  // Empty: of the request that began last. NotFound says what to do.
  absl::StatusOr<RequestTrace> Find(absl::string_view request) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable absl::Mutex mu_;
  std::list<RequestTrace> requests_ ABSL_GUARDED_BY(mu_);  // in the order of their beginning
  absl::flat_hash_map<std::string, std::list<RequestTrace>::iterator> by_name_ ABSL_GUARDED_BY(mu_);
  size_t steps_ ABSL_GUARDED_BY(mu_) = 0;  // together
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_TRACE_STORE_H_
