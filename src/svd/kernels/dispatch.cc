// Asks the CPU what it runs. Compiled for the baseline ISA, unlike what it hands out.
#include "svd/kernels/projection.h"

namespace efedllm {

#if defined(__x86_64__)
const ProjectionKernels* Avx2Projection() {
  static const bool runs = __builtin_cpu_supports("avx2");
  return runs ? &kAvx2Projection : nullptr;
}

const ProjectionKernels* Avx512Projection() {
  static const bool runs = __builtin_cpu_supports("avx512f") &&
                           __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512vnni");
  return runs ? &kAvx512Projection : nullptr;
}
#else
const ProjectionKernels* Avx2Projection() { return nullptr; }
const ProjectionKernels* Avx512Projection() { return nullptr; }
#endif

const ProjectionKernels& BestProjection() {
  if (const ProjectionKernels* kernels = Avx512Projection()) return *kernels;
  if (const ProjectionKernels* kernels = Avx2Projection()) return *kernels;
  return ScalarProjection();
}

}  // namespace efedllm
