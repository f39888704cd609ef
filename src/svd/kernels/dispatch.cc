// Asks the CPU what it runs. Compiled for the baseline ISA, unlike what it hands out.
#include "svd/kernels/codec_kernels.h"

namespace efedllm {

#if defined(__x86_64__)
const CodecKernels* Avx2CodecKernels() {
  static const bool runs = __builtin_cpu_supports("avx2");
  return runs ? &kAvx2CodecTable : nullptr;
}

const CodecKernels* Avx512CodecKernels() {
  static const bool runs = __builtin_cpu_supports("avx512f") &&
                           __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512vnni");
  return runs ? &kAvx512CodecTable : nullptr;
}
#else
const CodecKernels* Avx2CodecKernels() { return nullptr; }
const CodecKernels* Avx512CodecKernels() { return nullptr; }
#endif

const CodecKernels& BestCodecKernels() {
  if (const CodecKernels* kernels = Avx512CodecKernels()) return *kernels;
  if (const CodecKernels* kernels = Avx2CodecKernels()) return *kernels;
  return ScalarCodecKernels();
}

}  // namespace efedllm
