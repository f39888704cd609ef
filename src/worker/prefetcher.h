// Weights that this node may need soon go to its disk while it has nothing else to do.
#ifndef EFEDLLM_WORKER_PREFETCHER_H_
#define EFEDLLM_WORKER_PREFETCHER_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "model/weight_cache.h"
#include "net/credentials.h"
#include "wire/cluster_service.h"
#include "wire/handover_wire.h"
#include "worker/weight_fetcher.h"

namespace efedllm {

// One thread.
class Prefetcher {
 public:
  // All borrowed; they outlive this.
  Prefetcher(v1::Cluster::StubInterface& stub, const Transport& transport, WeightCache& cache)
      : stub_(stub), transport_(transport), cache_(cache) {}

  // Gets tensors into the cache, one after the other, until all are there or one can't be had: that
  // is logged, and fails nothing. start is called with a fetch before it begins, and with null
  // after it; it may cancel it from then on, and returns false where none shall begin.
  using StartCallback = std::function<bool(WeightFetcher* fetcher)>;
  void Fetch(const Prefetch& prefetch, const StartCallback& start);

 private:
  absl::Status FetchOne(const TensorSpec& tensor, const StartCallback& start);

  v1::Cluster::StubInterface& stub_;
  const Transport& transport_;
  WeightCache& cache_;
  absl::Status logged_;  // the last problem: not said again and again
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_PREFETCHER_H_
