// Gets the bases of boundaries in the background: from the store, or by calibrating.
#ifndef EFEDLLM_COORDINATOR_BASIS_KEEPER_H_
#define EFEDLLM_COORDINATOR_BASIS_KEEPER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/basis_store.h"
#include "model/model_file.h"
#include "svd/boundary_basis.h"

namespace efedllm {

// Thread-safe.
class BasisKeeper {
 public:
  using Bases = std::vector<std::shared_ptr<const BoundaryBasis>>;
  // on_bases: called on the keeper's thread with each lot that was wanted. file is borrowed.
  BasisKeeper(const ModelFile& file, const std::string& state_dir,
              std::function<void(const Bases&)> on_bases);
  // Cancels a calibration under way.
  ~BasisKeeper();

  // Returns at once. A boundary is got once; if that fails, which is a warning, edges there stay
  // without a basis until the next start.
  void Want(const std::vector<uint32_t>& boundaries) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);
  void Get(const std::vector<uint32_t>& boundaries) ABSL_LOCKS_EXCLUDED(mu_);
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return stopping_ || !wanted_.empty(); }

  const ModelFile& file_;
  const BasisStore store_;
  const std::function<void(const Bases&)> on_bases_;

  mutable absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::set<uint32_t> known_ ABSL_GUARDED_BY(mu_);
  std::vector<uint32_t> wanted_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_BASIS_KEEPER_H_
