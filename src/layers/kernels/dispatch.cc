// Asks the CPU what it runs. Compiled for the baseline ISA, unlike what it hands out.
#include "layers/kernels/dispatch.h"

#include "common/check.h"
#include "layers/kernels/kernel_table.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace efedllm {

MatmulKernel MatmulFor(const KernelTable& table, DType dtype) {
  if (dtype == DType::kF32) return table.matmul_f32;
  if (dtype == DType::kF16) return table.matmul_f16;
  if (dtype == DType::kBF16) return table.matmul_bf16;
  for (size_t i = 0; i < kQuantFormatCount; ++i) {
    if (kQuantFormats[i].dtype == dtype) return table.matmul_quant->of[i];
  }
  CheckFailed(__FILE__, __LINE__, "a DType outside of the enum");
}

#if defined(__x86_64__)
namespace {

bool CpuHasF16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

}  // namespace

const KernelTable* Avx2Kernels() {
  static const bool runs =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && CpuHasF16c();
  return runs ? &kAvx2Table : nullptr;
}

const KernelTable* Avx512Kernels() {
  static const bool runs =
      Avx2Kernels() != nullptr && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  return runs ? &kAvx512Table : nullptr;
}
#else
const KernelTable* Avx2Kernels() { return nullptr; }
const KernelTable* Avx512Kernels() { return nullptr; }
#endif

#if defined(__aarch64__)
const KernelTable* NeonKernels() { return &kNeonTable; }
const KernelTable* NeonDotprodKernels() {
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0 ? &kNeonDotprodTable : nullptr;
}
#else
const KernelTable* NeonKernels() { return nullptr; }
const KernelTable* NeonDotprodKernels() { return nullptr; }
#endif

}  // namespace efedllm
