// The tables of the per-ISA files. Only dispatch.cc may take them: it has asked the CPU first.
#ifndef EFEDLLM_LAYERS_KERNELS_DISPATCH_H_
#define EFEDLLM_LAYERS_KERNELS_DISPATCH_H_

#include "layers/kernels/kernel_table.h"

namespace efedllm {

extern const KernelTable kAvx2Table;         // needs AVX2, FMA and F16C
extern const KernelTable kAvx512Table;       // needs these and AVX-512 F, BW, DQ, VL and VNNI
extern const KernelTable kNeonTable;         // needs what every 64-bit ARM has
extern const KernelTable kNeonDotprodTable;  // needs int8 dot products as well

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_KERNELS_DISPATCH_H_
