#include "layers/compute.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "layers/kernels/kernel_table.h"

namespace efedllm {
namespace {

absl::StatusOr<const KernelTable*> FindKernels(absl::string_view name) {
  const KernelTable* avx2 = Avx2Kernels();
  if (name == "auto") return avx2 != nullptr ? avx2 : &ScalarKernels();
  if (name == "scalar") return &ScalarKernels();
  if (name != "avx2") {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown kernels \"", name, "\"; choose auto, scalar or avx2"));
  }
  if (avx2 == nullptr) {
    return absl::InvalidArgumentError("this CPU has no AVX2, FMA and F16C; use --kernels=auto");
  }
  return avx2;
}

}  // namespace

absl::StatusOr<Compute> Compute::Create(int threads, absl::string_view kernels) {
  if (threads < 0 || threads > 1024) {
    return absl::InvalidArgumentError(absl::StrCat("threads must be 0 to 1024, not ", threads));
  }
  const absl::StatusOr<const KernelTable*> table = FindKernels(kernels);
  if (!table.ok()) return table.status();
  Compute compute;
  compute.team = std::make_unique<ThreadTeam>(threads);
  compute.kernels = *table;
  return compute;
}

}  // namespace efedllm
