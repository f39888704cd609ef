// Brings up the stage that the coordinator assigned last, and lets go of it: on a thread of its
// own, so that heartbeats go on while weights travel.
#ifndef EFEDLLM_WORKER_STAGE_KEEPER_H_
#define EFEDLLM_WORKER_STAGE_KEEPER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "layers/compute.h"
#include "model/weight_cache.h"
#include "net/credentials.h"
#include "wire/cluster_service.h"
#include "wire/cluster_wire.h"
#include "worker/stage_runner.h"
#include "worker/weight_fetcher.h"

namespace efedllm {

struct StageKeeperOptions {
  uint64_t memory_bytes = 0;     // what a stage may take
  uint64_t max_frame_bytes = 0;  // what the receiver was made for
  std::string coordinator;       // HOST:PORT, completes a downstream address without a host
  bool draw_bar = false;
};

// Assigned -> fetching -> ready, or failed; each step is told to `report`, from the keeper's
// thread. Only the last assignment counts.
class StageKeeper {
 public:
  using ReportCallback = std::function<void(const StageReport&)>;
  // All references are borrowed and outlive this.
  StageKeeper(const StageKeeperOptions& options, v1::Cluster::StubInterface& stub,
              const Transport& transport, WeightCache& cache, Compute& compute, StageRunner& runner,
              ReportCallback report);
  // Cancels a fetch under way and drops the stage.
  ~StageKeeper();

  // Thread-safe; return at once. What was there before is cancelled and dropped first.
  void Assign(Assignment assignment) ABSL_LOCKS_EXCLUDED(mu_);
  void Release() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Job {
    std::optional<Assignment> assignment;  // nullopt: hold nothing
  };

  void Submit(Job job) ABSL_LOCKS_EXCLUDED(mu_);
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return job_.has_value() || stopping_; }

  absl::Status BringUp(const Assignment& assignment);
  absl::Status Check(const Assignment& assignment) const;
  absl::StatusOr<std::vector<StageTensor>> FetchTensors(const Assignment& assignment)
      ABSL_LOCKS_EXCLUDED(mu_);
  std::string DownstreamAddress(const Assignment& assignment) const;
  void Tell(const Assignment& assignment, StageState state, const std::string& message);

  // Constant after construction.
  const StageKeeperOptions options_;
  v1::Cluster::StubInterface& stub_;
  const Transport& transport_;
  WeightCache& cache_;
  Compute& compute_;
  StageRunner& runner_;
  const ReportCallback report_;

  FetchBytes bytes_;  // of the present assignment; the keeper's thread alone

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<Job> job_ ABSL_GUARDED_BY(mu_);  // the latest; earlier ones don't matter any more
  WeightFetcher* fetcher_ ABSL_GUARDED_BY(mu_) = nullptr;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_STAGE_KEEPER_H_
