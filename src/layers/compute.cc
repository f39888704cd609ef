#include "layers/compute.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "layers/kernels/kernel_table.h"

namespace efedllm {
namespace {

absl::StatusOr<const KernelTable*> FindKernels(absl::string_view name) {
  // From the best to the definition, which every CPU runs.
  const struct {
    absl::string_view name;
    const KernelTable* table;
  } all[] = {{"avx512", Avx512Kernels()},
             {"avx2", Avx2Kernels()},
             {"neon_dotprod", NeonDotprodKernels()},
             {"neon", NeonKernels()},
             {"scalar", &ScalarKernels()}};
  for (const auto& kernels : all) {
    if (name == "auto" && kernels.table != nullptr) return kernels.table;
    if (name != kernels.name) continue;
    if (kernels.table != nullptr) return kernels.table;
    return absl::InvalidArgumentError(
        absl::StrCat("this CPU can't run the ", name, " kernels; use --kernels=auto"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown kernels \"", name, "\"; choose auto, scalar, avx2, avx512, neon or neon_dotprod"));
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
