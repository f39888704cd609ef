#include "layers/kernels/avx2/avx2.h"
#include "layers/kernels/dispatch.h"

namespace efedllm {

const KernelTable kAvx2Table = {
    .name = "avx2",
    .matmul_f32 = avx2::MatmulF32,
    .matmul_f16 = avx2::MatmulF16,
    .matmul_bf16 = avx2::MatmulBf16,
    .matmul_quant = &avx2::kQuantMatmuls,
    .quantize = avx2::Quantize,
    .rms_norm = avx2::RmsNorm,
    .rope = avx2::Rope,
    .rope_halves = avx2::RopeHalves,
    .attend = avx2::Attend,
    .to_f16 = avx2::ToF16,
    .silu_mul = avx2::SiluMul,
    .gelu_mul = avx2::GeluMul,
    .soft_cap = avx2::SoftCap,
    .add = avx2::Add,
    .add_scaled = avx2::AddScaled,
    .exp = avx2::Exp,
};

}  // namespace efedllm
