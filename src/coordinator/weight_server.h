// Sends the model's tensors to the workers that were assigned them.
#ifndef EFEDLLM_COORDINATOR_WEIGHT_SERVER_H_
#define EFEDLLM_COORDINATOR_WEIGHT_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/tensor_spec.h"
#include "model/model_file.h"
#include "wire/cluster_service.h"

namespace efedllm {

// Thread-safe. Borrows the file.
class WeightServer {
 public:
  // max_streams: fetches at a time; more are told to come again.
  explicit WeightServer(const ModelFile& file, size_t max_streams = 128)
      : file_(file), max_streams_(max_streams) {}

  // From now on these may be fetched. They have their digests.
  void Offer(const std::vector<TensorSpec>& tensors) ABSL_LOCKS_EXCLUDED(mu_);
  // A basis of a boundary, which is no tensor of the file but goes the same way. Returns what an
  // assignment names it by.
  TensorSpec OfferBasis(uint32_t boundary, std::string bytes) ABSL_LOCKS_EXCLUDED(mu_);

  // The reactor of one Cluster.FetchTensor call, which deletes itself. A chunk is read when the
  // transport has room for it. NotFound: no such tensor; ResourceExhausted: too many fetches.
  grpc::ServerWriteReactor<v1::TensorChunk>* Fetch(const v1::FetchTensorRequest& request)
      ABSL_LOCKS_EXCLUDED(mu_);
  static grpc::ServerWriteReactor<v1::TensorChunk>* Refuse(const absl::Status& why);

 private:
  class Stream;
  // One of the two.
  struct Offered {
    const ModelTensor* tensor = nullptr;
    std::shared_ptr<const std::string> basis;
    uint64_t size_bytes() const { return tensor != nullptr ? tensor->size_bytes() : basis->size(); }
  };

  absl::StatusOr<Offered> Begin(const v1::FetchTensorRequest& request) ABSL_LOCKS_EXCLUDED(mu_);
  void Finished() ABSL_LOCKS_EXCLUDED(mu_);

  const ModelFile& file_;
  const size_t max_streams_;

  absl::Mutex mu_;
  absl::flat_hash_map<std::string, Offered> offered_ ABSL_GUARDED_BY(mu_);  // by id
  size_t streams_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_WEIGHT_SERVER_H_
