#include "layers/kernels/avx2/avx2.h"
#include "layers/kernels/avx512/avx512.h"
#include "layers/kernels/dispatch.h"

namespace efedllm {

const KernelTable kAvx512Table = {
    .name = "avx512",
    .matmul_f32 = avx512::MatmulF32,
    .matmul_f16 = avx512::MatmulF16,
    .matmul_bf16 = avx512::MatmulBf16,
    .matmul_quant = &avx512::kQuantMatmuls,
    .quantize = avx2::Quantize,
    .rms_norm = avx2::RmsNorm,
    .rope = avx2::Rope,
    .rope_halves = avx2::RopeHalves,
    .attend = avx512::Attend,
    .to_f16 = avx2::ToF16,
    .silu_mul = avx2::SiluMul,
    .gelu_mul = avx2::GeluMul,
    .soft_cap = avx2::SoftCap,
    .add = avx2::Add,
    .add_scaled = avx2::AddScaled,
    .exp = avx2::Exp,
};

}  // namespace efedllm
