// Prepares the stage that the coordinator assigned last beside the one that runs, hands KV over,
// and fetches weights ahead: on a thread of its own, so that steps and heartbeats go on meanwhile.
#ifndef EFEDLLM_WORKER_STAGE_KEEPER_H_
#define EFEDLLM_WORKER_STAGE_KEEPER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "layers/compute.h"
#include "model/weight_cache.h"
#include "net/credentials.h"
#include "net/hop.h"
#include "net/hop_kv.h"
#include "wire/cluster_service.h"
#include "wire/cluster_wire.h"
#include "wire/handover_wire.h"
#include "worker/held_stage.h"
#include "worker/prefetcher.h"
#include "worker/stage_runner.h"
#include "worker/weight_fetcher.h"

namespace efedllm {

struct StageKeeperOptions {
  NodeId self;
  uint64_t memory_bytes = 0;     // what stages may take together
  uint64_t max_frame_bytes = 0;  // what the receiver was made for
  std::string coordinator;       // HOST:PORT, completes an address without a host
  bool draw_bar = false;
  // How long a stage's downstream may take to answer before the stage is ready. A node that the
  // same plan needs may be about to come back, or a link to recover.
  absl::Duration downstream_timeout = absl::Seconds(3);
};

// What a keeper uses, all borrowed; they outlive it.
struct StageKeeperParts {
  v1::Cluster::StubInterface& stub;
  const Transport& transport;
  WeightCache& cache;
  Compute& compute;
  const Clock& clock;
  StageRunner& runner;
  KeptRows* rows = nullptr;  // null, both: no receipts
  ReceiptWriter* receipts = nullptr;
  const StageTamper* tamper = nullptr;  // null: nothing is wrong
};

// Assigned -> fetching -> ready, or failed; each step is told to `report`, from the keeper's
// thread. Only the last assignment counts.
class StageKeeper final : public KvSink {
 public:
  using ReportCallback = std::function<void(const StageReport&)>;
  using HandedOverCallback = std::function<void(const HandedOver&)>;
  StageKeeper(const StageKeeperOptions& options, const StageKeeperParts& parts,
              ReportCallback report, HandedOverCallback handed_over);
  // Cancels what is under way and drops the stages.
  ~StageKeeper() override;

  // Thread-safe; return at once. Assign ends what the keeper does at that moment, but never the
  // stage that runs, unless the node's memory is too small for both: then that one is dropped
  // first. Release drops both.
  void Assign(Assignment assignment) ABSL_LOCKS_EXCLUDED(mu_);
  void Release() ABSL_LOCKS_EXCLUDED(mu_);
  // Halts the stage that runs and sends its KV to another node; `handed_over` tells the end.
  void HandOverKv(HandOver hand_over) ABSL_LOCKS_EXCLUDED(mu_);
  // Fetches weights when there is nothing else to do, while the disk has room.
  void PrefetchWeights(Prefetch prefetch) ABSL_LOCKS_EXCLUDED(mu_);

  // KV that another node hands over, into the prepared stage, which is reported ready once more.
  absl::Status TakeKv(const grpc::ByteBuffer& frame) override;
  absl::Status FinishKv(NodeId from, Epoch next_epoch) override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // What is to be done, in this order. Of each the latest; earlier ones don't matter any more.
  struct Jobs {
    bool release = false;
    std::optional<Assignment> assignment;
    std::optional<Epoch> imported;
    std::optional<HandOver> hand_over;
    std::optional<Prefetch> prefetch;
  };

  void Loop() ABSL_LOCKS_EXCLUDED(mu_);
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  Jobs TakeNext() ABSL_LOCKS_EXCLUDED(mu_);  // one job
  void Do(Jobs job) ABSL_LOCKS_EXCLUDED(mu_);
  void Interrupt() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // True: a job came that ends the one under way. Else `cancel` is called when one comes, until the
  // next SetCancel.
  bool SetCancel(std::function<void()> cancel) ABSL_LOCKS_EXCLUDED(mu_);

  void TakeAssignment(const Assignment& assignment);
  absl::Status BringUp(const Assignment& assignment, StageFault& fault, bool& kept);
  absl::Status Check(const Assignment& assignment) const;
  // All that the assignment names and the stage does not have already.
  absl::StatusOr<std::vector<StageTensor>> FetchTensors(const Assignment& assignment, bool weights)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<std::shared_ptr<StageExecutor>> MakeExecutor(const Assignment& assignment,
                                                              std::vector<StageTensor> weights);
  absl::Status AwaitDownstream(FrameSender& downstream) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status SendKv(const HandOver& hand_over, uint64_t& bytes) ABSL_LOCKS_EXCLUDED(mu_);
  std::string CompleteAddress(const std::string& address) const;
  void Tell(Epoch epoch, StageState state, bool kept);
  void TellFailed(Epoch epoch, const absl::Status& why, StageFault fault);

  // Constant after construction.
  const StageKeeperOptions options_;
  const StageKeeperParts parts_;
  const ReportCallback report_;
  const HandedOverCallback handed_over_;

  // Of the keeper's thread.
  FetchBytes bytes_;  // of the last assignment
  Prefetcher prefetcher_;

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  Jobs jobs_ ABSL_GUARDED_BY(mu_);
  bool prefetching_ ABSL_GUARDED_BY(mu_) = false;  // which any other work may interrupt
  bool interrupted_ ABSL_GUARDED_BY(mu_) = false;
  std::function<void()> cancel_ ABSL_GUARDED_BY(mu_);  // ends what is under way; may be empty

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_STAGE_KEEPER_H_
