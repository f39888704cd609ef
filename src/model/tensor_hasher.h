// Chunk digests of a model file's tensors: what makes a TensorSpec a name by content.
#ifndef EFEDLLM_MODEL_TENSOR_HASHER_H_
#define EFEDLLM_MODEL_TENSOR_HASHER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/tensor_spec.h"
#include "model/model_file.h"

namespace efedllm {

// Hashes a tensor when it is first asked for, and remembers. With a state folder the digests are
// kept there, one checked line per tensor, in a file named after the model files' sizes, times of
// change and headers, so that a restart need not read the model again. Thread-safe: callers of the
// same tensor wait for one computation, those of other tensors run beside it.
class TensorHasher {
 public:
  // file is borrowed and outlives this. state_dir: empty, or a folder that is made where it is
  // missing; the file must then have been opened by path. An unreadable or unwritable state folder
  // is an error.
  static absl::StatusOr<std::unique_ptr<TensorHasher>> Create(const ModelFile& file,
                                                              const std::string& state_dir);

  // spec with its chunk digests. NotFound: the file has no such tensor; InvalidArgument: the spec's
  // size is not that of the file's tensor.
  absl::StatusOr<TensorSpec> Hash(TensorSpec spec) ABSL_LOCKS_EXCLUDED(mu_);
  // The same, if that takes no hashing; nullopt otherwise.
  std::optional<TensorSpec> Known(TensorSpec spec) ABSL_LOCKS_EXCLUDED(mu_);
  // The same for a list, one after another.
  absl::StatusOr<std::vector<TensorSpec>> Hash(std::vector<TensorSpec> specs);

 private:
  struct Entry {
    absl::Mutex mu;
    bool done ABSL_GUARDED_BY(mu) = false;
    std::vector<Sha256Digest> chunks ABSL_GUARDED_BY(mu);
  };

  TensorHasher(const ModelFile& file, std::string digest_file)
      : file_(file), digest_file_(std::move(digest_file)) {}

  std::vector<Sha256Digest> Compute(const ModelTensor& tensor) const;
  void Load(const std::string& text) ABSL_LOCKS_EXCLUDED(mu_);
  void Append(const std::string& name, const std::vector<Sha256Digest>& chunks)
      ABSL_LOCKS_EXCLUDED(append_mu_);

  const ModelFile& file_;
  const std::string digest_file_;  // empty: digests are not kept

  absl::Mutex mu_;
  absl::flat_hash_map<std::string, std::shared_ptr<Entry>> entries_ ABSL_GUARDED_BY(mu_);
  absl::Mutex append_mu_;  // one writer of digest_file_
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_TENSOR_HASHER_H_
