// What computing needs: a team of threads and a table of kernels. One per process (or per simulated
// node).
#ifndef EFEDLLM_LAYERS_COMPUTE_H_
#define EFEDLLM_LAYERS_COMPUTE_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/thread_team.h"
#include "tensor/matrix.h"

namespace efedllm {

struct KernelTable;   // layers/kernels/kernel_table.h
struct PackedMatrix;  // layers/packed_matrix.h

// Sees the inputs of a product before it is computed, on the thread that asked for it. x: [n, w's
// columns], borrowed for the call.
using ProductObserver = std::function<void(ConstMatrixRef x, const PackedMatrix& w)>;

struct Compute {
  // threads: 0 means inline on the caller. kernels: "auto" (the best that this CPU runs), "scalar",
  // "avx2", "avx512" (with VNNI), "neon", "neon_dotprod". InvalidArgument: an unknown name, or one
  // that this CPU can't run.
  static absl::StatusOr<Compute> Create(int threads, absl::string_view kernels);

  std::unique_ptr<ThreadTeam> team;
  const KernelTable* kernels = nullptr;  // static
  ProductObserver observe;               // empty: nobody looks (calibration does)
};

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_COMPUTE_H_
