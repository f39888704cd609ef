// What computing needs: a team of threads and a table of kernels. One per process (or per simulated
// node).
#ifndef EFEDLLM_LAYERS_COMPUTE_H_
#define EFEDLLM_LAYERS_COMPUTE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/thread_team.h"

namespace efedllm {

struct KernelTable;  // layers/kernels/kernel_table.h

struct Compute {
  // threads: 0 means inline on the caller. kernels: "auto" (the best that this CPU runs), "scalar",
  // "avx2", "avx512" (with VNNI), "neon", "neon_dotprod". InvalidArgument: an unknown name, or one
  // that this CPU can't run.
  static absl::StatusOr<Compute> Create(int threads, absl::string_view kernels);

  std::unique_ptr<ThreadTeam> team;
  const KernelTable* kernels = nullptr;  // static
};

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_COMPUTE_H_
