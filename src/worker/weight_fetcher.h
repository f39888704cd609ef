// Gets a stage's tensors into the weight cache: what is there is mapped, what is not is fetched
// from the coordinator, chunk by verified chunk, from where an earlier attempt ended.
#ifndef EFEDLLM_WORKER_WEIGHT_FETCHER_H_
#define EFEDLLM_WORKER_WEIGHT_FETCHER_H_

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/tensor_spec.h"
#include "model/stage_executor.h"
#include "model/weight_cache.h"
#include "net/credentials.h"
#include "wire/cluster_service.h"
#include "worker/fetch_progress.h"

namespace efedllm {

// One fetch of one assignment; make a new one for the next.
class WeightFetcher {
 public:
  // All borrowed; they outlive this.
  WeightFetcher(v1::Cluster::StubInterface& stub, const Transport& transport, WeightCache& cache,
                FetchProgress& progress)
      : stub_(stub), transport_(transport), cache_(cache), progress_(progress) {}

  // All tensors, mapped, in the order of specs. DataLoss: a chunk arrived damaged again and again;
  // NotFound: the coordinator has no such tensor; Cancelled: Cancel was called; Internal: the disk
  // (full, say); Unavailable: the connection broke again and again without any progress.
  absl::StatusOr<std::vector<StageTensor>> Fetch(const std::vector<TensorSpec>& specs)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Makes Fetch return soon. Thread-safe.
  void Cancel() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::StatusOr<std::shared_ptr<const PackedTensor>> Get(const TensorSpec& spec);
  // One call: chunks from `next` on, which counts those that are in the cache.
  absl::Status Stream(const TensorSpec& spec, uint64_t& next);
  absl::Status ReadChunks(grpc::ClientReaderInterface<v1::TensorChunk>& reader,
                          const TensorSpec& spec, uint64_t& next);
  absl::Status AwaitRetry(absl::Duration wait) ABSL_LOCKS_EXCLUDED(mu_);
  // The first reason counts.
  void End(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status ended() const ABSL_LOCKS_EXCLUDED(mu_);
  bool HasEnded() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !ended_.ok(); }

  v1::Cluster::StubInterface& stub_;
  const Transport& transport_;
  WeightCache& cache_;
  FetchProgress& progress_;

  mutable absl::Mutex mu_;
  absl::Status ended_ ABSL_GUARDED_BY(mu_);  // OK: goes on
  std::set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_WEIGHT_FETCHER_H_
